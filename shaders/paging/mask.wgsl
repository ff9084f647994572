// y[b, 0, i, n] = n <= own && n < table[b, 0] + table[b, 1] && (window == 0 || n > own - window), where
// own = table[b, 0] + i
//
// bindings: 0 params · 1 table · 2 y
// dispatch: one invocation per word of y, workgroups spread over x and y

struct Params {
  count: u32, // elements of y
  queries: u32,
  room: u32, // tokens in the pages of a row of the table
  window: i32,
  table: vec3<i32>, // strides of its rows and columns; offset
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

fn value_of_y(i: u32) -> bool {
  let token = i32(i % p.room);
  let row = p.table.z + i32(i / p.room / p.queries) * p.table.x;
  let before = load_table(u32(row));
  let own = before + i32(i / p.room % p.queries);
  let is_earlier = token <= own && token < before + load_table(u32(row + p.table.y));
  return is_earlier && (p.window == 0 || token > own - p.window);
}

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let word = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (word * $lanes_y < p.count) { write_y(word); }
}
