// y[i] = reduce over j of x[i, j]: i counts the kept elements, j the reduced ones, both through any strides.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: `lanes` invocations a result, workgroups spread over x and y; one lane a result without workgroup memory
//
// The accumulator is a State: `take` adds an element to it, `merge` combines two. Elements are accumulated in runs of
// 128, which are then merged, so that a row of 100,000 keeps its precision. A row may be split into parts, each with its
// own result.

struct Params {
  results: u32,
  reduced: u32, // elements of a row, or vectors of four if rows are read as such
  kept_rank: u32,
  reduced_rank: u32,
  offset: i32,
  factor: f32, // of a mean or variance, else 1
  parts: u32, // results a row
  part: u32, // elements or vectors of a part
  lanes: u32, // invocations a result, a power of two
  beside: u32, // 1 if adjacent lanes compute adjacent results, else 0
  shape: array<vec4<u32>, 4>, // two vectors for the kept axes, two for the reduced ones
  strides: array<vec4<i32>, 4>,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

var<private> shift: f32; // the row's first element, which a variance subtracts, so that a large mean costs no precision

alias State = $state;
fn start() -> State { return $start; }
fn take(s: State, x: $type_x, j: u32) -> State { return $taken; }
fn merge(a: State, b: State) -> State { return $merge; }
fn finish(s: State) -> $type_y { return $finish; }

fn offset_of(first: u32, rank: u32, element: u32) -> i32 {
  var rest = element;
  var at = 0;
  for (var back = 1u; back <= rank; back++) {
    let axis = first + rank - back;
    let size = p.shape[axis / 4u][axis % 4u];
    at += i32(rest % size) * p.strides[axis / 4u][axis % 4u];
    rest /= size;
  }
  return at;
}

$reduced_offset
$shared

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let results = ${workgroup}u / p.lanes; // of this workgroup
  var own = lane / p.lanes;
  var place = lane % p.lanes;
  if (p.beside != 0u) {
    own = lane % results;
    place = lane / results;
  }
  let i = (group.y * groups.x + group.x) * results + own;
  var row = i / p.parts;
  var part = i % p.parts;
  if (p.beside != 0u) { // adjacent lanes read adjacent rows
    row = i % (p.results / p.parts);
    part = i / (p.results / p.parts);
  }
  var total = start();
  if (i < p.results) {
    let base = p.offset + offset_of(0u, p.kept_rank, row);
    $prepare
    let begin = part * p.part;
    let end = min(begin + p.part, p.reduced);
    for (var first = begin + place; first < end; first += $run * p.lanes) {
      var run = start();
      for (var j = first; j < min(first + $run * p.lanes, end); j += p.lanes) {
        $take
      }
      total = merge(total, run);
    }
  }
  $gather
  if (i < p.results && place == 0u) { store_y(row * p.parts + part, finish(total)); }
}
