// y[r(b, i), h, s(b, i), d] = update[b, h, i, d], where y has such a row; the rest of y is unchanged. A cache has a place
// for each row: r = b and s = position[b] + i. A pool has pages of `size` rows: token n = table[b, 0] + i of b is row
// s = n % size of page r = table[b, 2 + n / size], if i < table[b, 1]. The update may be rotated as
// rotary_embedding.wgsl does it, and a second update may be written to another y of the same shape.
//
// bindings: 0 params · first update and its y · second update and its y, if there is one · position or table · cos,
//           sin, positions, if one is rotated; each y is dense
// dispatch: one invocation per element of the updates, or four adjacent ones, workgroups spread over x and y

struct Update {
  items: u32,
  heads: u32,
  rows: u32,
  width: u32, // of a row, in what an invocation writes
  offset: i32,
  strides: vec4<i32>,
}
struct Params {
  $updates
  places: vec4<i32>, // of positions: strides of batch, head, row; offset
  table: vec3<i32>, // strides of its rows and columns; offset
  pages: i32,
  size: i32, // rows of y along its third axis
  room: i32, // tokens in the pages of a row of the table
  half: u32, // of the rotated dimensions
  table_rows: i32,
  nan: f32,
  first_page: i32, // of y: of a part of a pool, not 0
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

// The row of y, counted over all, for row at.z of the update's batch at.x and head at.y; below 0 if there is none.
fn target_row(at: vec4<u32>, heads: u32) -> i32 {
  $target
}
$appends

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let item = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (item < p.first.items) { append_first(item); } $second
}
