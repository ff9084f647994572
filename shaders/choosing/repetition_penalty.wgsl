// y = x with the scores of the row's tokens divided by its penalty where they are positive, else multiplied by it.
//
// bindings: 0 params · 1 x · 2 tokens · 3 first · 4 end · 5 penalty · 6 y
// dispatch: a workgroup per `tile` scores of a row, spread over x and y
//
// Each workgroup marks which of its scores are in the row's text, so that a token counts once.

struct Params {
  rows: u32,
  columns: u32,
  capacity: u32, // tokens of a row, of which the text is a range
  end_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

const lanes = ${lanes}u;
const tile = $each * lanes; // scores of a workgroup

var<workgroup> marks: array<atomic<u32>, tile / 32u>;

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let number = group.y * groups.x + group.x;
  let tiles = (p.columns + tile - 1u) / tile;
  let row = number / tiles;
  if (row >= p.rows) { return; }
  let begin = number % tiles * tile;
  let end = min(load_end(row * p.end_stride), i32(p.capacity));
  for (var i = max(load_first(row), 0) + i32(lane); i < end; i += i32(lanes)) {
    let place = u32(load_tokens(row * p.capacity + u32(i))) - begin; // wraps for tokens of other tiles
    if (place < tile) { atomicOr(&marks[place / 32u], 1u << (place % 32u)); }
  }
  workgroupBarrier();
  let penalty = load_penalty(row);
  for (var j = 0u; j < $each; j++) {
    let i = lane + j * lanes;
    if (begin + i >= p.columns) { break; }
    let at = row * p.columns + begin + i;
    let x = load_x(at);
    let penalized = select(x / penalty, x * penalty, x < 0f);
    store_y(at, select(x, penalized, ((atomicLoad(&marks[i / 32u]) >> (i % 32u)) & 1u) != 0u));
  }
}
