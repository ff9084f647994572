// y[i] = table[ids[i]]: rows of a table by number; an id outside the table gives a row of NaN.
//
// bindings: 0 params · 1 table · 2 ids · 3 y
// dispatch: one invocation an element of y, workgroups spread over x and y

struct Params {
  count: u32,
  columns: u32,
  rows: u32,
  nan: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (i >= p.count * p.columns) { return; }
  let id = load_ids(i / p.columns);
  if (id < 0 || u32(id) >= p.rows) {
    store_y(i, p.nan);
    return;
  }
  store_y(i, load_table(u32(id) * p.columns + i % p.columns));
}
