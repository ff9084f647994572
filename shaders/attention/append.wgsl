// y[b, h, position[b] + i, d] = update[b, h, i, d] if y has such a row; the rest of y is unchanged. The update may be
// rotated as rotary_embedding.wgsl does it, and a second update may be written to another y.
//
// bindings: 0 params · first update and its y · second update and its y, if there is one · position · cos, sin,
//           positions, if one is rotated; each y is dense
// dispatch: one invocation per element of the updates, or four adjacent ones, workgroups spread over x and y

struct Update {
  items: u32,
  heads: u32,
  rows: u32,
  width: u32, // of a row, in what an invocation writes
  capacity: i32, // rows of y
  offset: i32,
  padding: vec2<u32>,
  strides: vec4<i32>,
}
struct Params {
  $updates
  places: vec4<i32>, // of positions: strides of batch, head, row; offset
  position_offset: i32,
  position_stride: i32,
  half: u32, // of the rotated dimensions
  table_rows: i32,
  nan: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

$appends

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let item = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (item < p.first.items) { append_first(item); } $second
}
