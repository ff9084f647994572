// y[row, part, 0..k] = positions of the first k elements of each part of a row, in order; -1 where there are fewer.
//
// bindings: 0 params · 1 x · 2 ids, the positions to choose from, if not all · last y
// dispatch: one invocation for four elements of a part, workgroups spread over x and y
//
// The rank of an element is the number of elements of its part that precede it. Comparing all pairs needs no barrier
// and no branch, and every loaded element is compared with four.

struct Params {
  rows: u32,
  columns: u32, // of x
  size: u32, // positions per row to choose from
  part: u32,
  parts: u32,
  k: u32,
  width: u32, // of y
  flip: u32, // all ones for descending order, else 0
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

// Return the key and position of a candidate; position -1 stands for none.
fn candidate(row: u32, c: u32) -> vec2<u32> {
  let id = $candidate;
  if (id == 0xffffffffu) { return vec2<u32>(0u, id); }
  let x = load_x(row * p.columns + id);
  return vec2<u32>($key ^ p.flip, id);
}

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let item = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  let quads = (p.part + 3u) / 4u;
  let row = item / (quads * p.parts);
  if (row >= p.rows) { return; }
  let number = item / quads % p.parts;
  let begin = number * p.part;
  let end = min(begin + p.part, p.size);
  let first = begin + item % quads * 4u;
  if (first >= end) { return; }
  var keys: vec4<u32>;
  var ids = vec4<u32>(0xffffffffu);
  for (var i = 0u; i < 4u && first + i < end; i++) {
    let mine = candidate(row, first + i);
    keys[i] = mine.x;
    ids[i] = mine.y;
  }
  var ranks = vec4<u32>();
  var present = 0u;
  for (var c = begin; c < end; c++) {
    let other = candidate(row, c);
    if (other.y == 0xffffffffu) { continue; }
    present++;
    let less = vec4<u32>(vec4<u32>(other.x) < keys);
    let equal = vec4<u32>(vec4<u32>(other.x) == keys) & vec4<u32>(vec4<u32>(other.y) < ids);
    ranks += less | equal;
  }
  let start = row * p.width + number * p.k;
  let room = min(p.k, p.width - number * p.k);
  for (var i = 0u; i < 4u; i++) {
    if (ids[i] != 0xffffffffu && ranks[i] < room) { store_y(start + ranks[i], i32(ids[i])); }
  }
  if (first == begin) {
    for (var slot = present; slot < room; slot++) { store_y(start + slot, -1); }
  }
}
