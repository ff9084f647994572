// y[row] = ids[row] with every two neighbouring ordered runs made one: ids are positions in x[row].
//
// bindings: 0 params · 1 x · 2 ids · 3 y
// dispatch: one invocation an element, workgroups spread over x and y
//
// An element's place in the merged run is its place in its own run and how many of the other run come before it, found
// by bisection.

struct Params {
  rows: u32,
  columns: u32,
  run: u32,
  flip: u32, // all ones for descending order, else 0
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

fn key(row: u32, id: u32) -> u32 {
  let x = load_x(row * p.columns + id);
  return $key ^ p.flip;
}

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let item = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (item >= p.rows * p.columns) { return; }
  let row = item / p.columns;
  let at = item % p.columns;
  let own = at / p.run;
  let begin = min((own ^ 1u) * p.run, p.columns); // of the other run
  let end = min(begin + p.run, p.columns);
  let id = u32(load_ids(item));
  let mine = key(row, id);
  var low = begin;
  var high = end;
  while (low < high) {
    let middle = (low + high) / 2u;
    let other = u32(load_ids(row * p.columns + middle));
    let theirs = key(row, other);
    if (theirs < mine || (theirs == mine && other < id)) { low = middle + 1u; } else { high = middle; }
  }
  store_y(row * p.columns + own / 2u * 2u * p.run + at % p.run + low - begin, i32(id));
}
