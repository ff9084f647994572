// y[b, h, position[b] + i, d] = update[b, h, i, d], rotated as rotary_embedding.wgsl does it, if y has such a row; the rest of y is unchanged.
//
// bindings: 0 params · 1 update · 2 position · 3 cos · 4 sin · 5 positions · 6 y, dense
// dispatch: one invocation per element of update, workgroups spread over x and y

struct Params {
  items: u32,
  heads: u32,
  rows: u32, // of update
  width: u32, // of a row, in what an invocation writes
  capacity: i32, // rows of y
  offset: i32, // of update
  position_offset: i32,
  position_stride: i32,
  strides: vec4<i32>, // of update
  places: vec4<i32>, // of positions: strides of batch, head, row; offset
  half: u32, // of the rotated dimensions
  table_rows: i32,
  nan: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

fn turned(at: vec4<u32>, start: i32) -> f32 {
  let d = at.w;
  let value = load_update(u32(start + i32(d) * p.strides.w));
  $rotate
}

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let item = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (item >= p.items) { return; }
  let row = item / p.width;
  let head = row / p.rows; // of all batches
  let at = vec4<u32>(head / p.heads, head % p.heads, row % p.rows, item % p.width);
  let target_row = load_position(u32(p.position_offset + i32(at.x) * p.position_stride)) + i32(at.z);
  if (target_row < 0 || target_row >= p.capacity) { return; }
  let places = vec4<i32>(at) * p.strides;
  let start = p.offset + places.x + places.y + places.z;
  let slot = (head * u32(p.capacity) + u32(target_row)) * p.width + at.w;
  store_y(slot, turned(at, start));
}
