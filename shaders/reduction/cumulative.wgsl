// y[row, j + initial] = x[row, 0] + ... + x[row, j], row-major rows; y[row, 0] = 0 where initial is 1. Or the products,
// which begin with 1. A Result is what `combined` combines; `number` gives the number that it stands for.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: `lanes` invocations a row, workgroups spread over x and y; one lane a row without workgroup memory
//
// A row is processed in tiles; each lane combines `block` neighbouring elements of a tile. The result before a tile is kept
// separate from that within it, so that a row of 100,000 elements keeps its precision.

struct Params {
  rows: u32,
  columns: u32,
  initial: u32,
  block: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

alias Result = $result;
fn value(i: u32) -> Result { let x = $type_y(load_x(i)); return $taken; }
fn combined(a: Result, b: Result) -> Result { return $combination; }
fn number(s: Result) -> $type_y { return $number; }

$shared

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let lanes = ${lanes}u;
  let row = (group.y * groups.x + group.x) * (${workgroup}u / lanes) + lane / lanes;
  let place = lane % lanes;
  let x_row = row * p.columns;
  let y_row = row * (p.columns + p.initial);
  let columns = select(0u, p.columns, row < p.rows);
  if (row < p.rows && p.initial != 0u && place == 0u) { store_y(y_row, number($start)); }
  var carry = $start;
  for (var tile = 0u; tile < p.columns; tile += lanes * p.block) {
    let first = tile + place * p.block;
    let end = min(first + p.block, columns);
    var run = $start;
    $before
    for (var j = first; j < end; j++) {
      run = combined(run, value(x_row + j));
      store_y(y_row + j + p.initial, number(combined(carry, run)));
    }
    $carry
  }
}
