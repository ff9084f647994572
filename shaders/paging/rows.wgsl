// y[b, h, n, d] = x[table[b, 2 + n / size], h, n % size, d] if n < table[b, 0] + table[b, 1] and x has that page, else 0
//
// bindings: 0 params · 1 x · 2 table · 3 y
// dispatch: one invocation per word of y, or four adjacent elements, workgroups spread over x and y

struct Params {
  count: u32, // words, or fours, of y
  heads: u32,
  room: u32, // tokens in the pages of a row of the table
  width: u32, // of a row, in elements or fours
  table: vec3<i32>, // strides of its rows and columns; offset
  pages: i32,
  size: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

// Element or four `i` of y.
fn found(i: u32) -> $type {
  let token = i / p.width % p.room;
  let head = i / p.width / p.room;
  let row = p.table.z + i32(head / p.heads) * p.table.x;
  if (i32(token) >= load_table(u32(row)) + load_table(u32(row + p.table.y))) { return $type(); }
  let page = load_table(u32(row + i32(2u + token / p.size) * p.table.y));
  if (page < 0 || page >= p.pages) { return $type(); }
  return $load(((u32(page) * p.heads + head % p.heads) * p.size + token % p.size) * p.width + i % p.width);
}
$value

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let item = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (item >= p.count) { return; }
  $store
}
