// y[.., i, .., j] = x[.., i, .., j], where x is contiguous along i, and y along j.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: a tile of 32 by 32 per workgroup: x over j, y and z over i and the other axes
//
// For hardware: a tile goes through workgroup memory, so that reads and writes are of 32 adjacent elements.

struct Params {
  rows: u32, // i
  columns: u32, // j
  x_column: i32, // elements of x from one j to the next; from one i to the next it is 1
  y_row: i32,
  x_offset: i32,
  y_offset: i32,
  others: u32, // elements of the other axes
  shape: array<vec4<u32>, 2>, // theirs
  strides: array<vec4<i32>, 4>, // of y, then of x
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

const side = 32u;
const band = 8u; // rows of a tile that a workgroup has in flight

var<workgroup> tile: array<array<$type_x, 33>, 32>; // the 33rd avoids bank conflicts

// Offsets of an element by the other axes, in y and x.
fn places_of(number: u32) -> vec2<i32> {
  var rest = number;
  var at = vec2<i32>(p.y_offset, p.x_offset);
  $offsets
  return at;
}

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_id) lane: vec3<u32>) {
  let tiles = (p.rows + side - 1u) / side;
  let item = group.z * groups.y + group.y;
  let other = item / tiles;
  if (other >= p.others) { return; }
  let i = item % tiles * side;
  let j = group.x * side;
  let at = places_of(other);
  for (var step = 0u; step < side; step += band) {
    let column = j + lane.y + step;
    let row = i + lane.x;
    if (row < p.rows && column < p.columns) {
      tile[lane.y + step][lane.x] = load_x(u32(at.y + i32(row) + i32(column) * p.x_column));
    }
  }
  workgroupBarrier();
  for (var step = 0u; step < side; step += band) {
    let row = i + lane.y + step;
    let column = j + lane.x;
    if (row < p.rows && column < p.columns) {
      store_y(u32(at.x + i32(row) * p.y_row + i32(column)), tile[lane.x][lane.y + step]);
    }
  }
}
