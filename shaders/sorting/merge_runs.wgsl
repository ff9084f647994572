// y[row] = ids[row] with every two adjacent sorted runs merged: ids are positions in x[row].
//
// bindings: 0 params · 1 x · 2 ids · 3 y
// dispatch: one invocation for eight adjacent elements of y, workgroups spread over x and y
//
// Bisection finds the part of a prefix of the merged run that is from the left run ("merge path", Odeh et al., 2012);
// the next eight are then taken from the fronts of both. Of equal elements, those of the left run come first.

struct Params {
  rows: u32,
  columns: u32,
  run: u32, // a multiple of 4: the eight never cross two pairs of runs
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
  let chunks = (p.columns + 7u) / 8u;
  let row = item / chunks;
  if (row >= p.rows) { return; }
  let first = item % chunks * 8u;
  let start = first / (2u * p.run) * 2u * p.run; // of the two runs
  let middle = min(start + p.run, p.columns);
  let end = min(middle + p.run, p.columns);
  let base = row * p.columns;
  let before = first - start; // elements of the merged run before these
  var low = before - min(before, end - middle);
  var high = min(before, middle - start);
  while (low < high) {
    let half = (low + high) / 2u;
    let left = key(row, u32(load_ids(base + start + half)));
    let right = key(row, u32(load_ids(base + middle + before - 1u - half)));
    if (left <= right) { low = half + 1u; } else { high = half; }
  }
  var i = start + low;
  var j = middle + before - low;
  var left_id = u32(load_ids(base + min(i, p.columns - 1u)));
  var right_id = u32(load_ids(base + min(j, p.columns - 1u)));
  var left = key(row, left_id);
  var right = key(row, right_id);
  for (var at = first; at < min(first + 8u, end); at++) {
    if (j >= end || (i < middle && left <= right)) {
      store_y(base + at, i32(left_id));
      i++;
      left_id = u32(load_ids(base + min(i, p.columns - 1u)));
      left = key(row, left_id);
    } else {
      store_y(base + at, i32(right_id));
      j++;
      right_id = u32(load_ids(base + min(j, p.columns - 1u)));
      right = key(row, right_id);
    }
  }
}
