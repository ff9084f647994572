// y[..., m, n] = activation(sum over k of a[..., m, k] * b[..., k, n] + bias[n]) + residual[..., m, n], any strides.
//
// bindings: 0 params · 1 a · 2 b · bias and residual, where they are · last y
// dispatch: a tile of y a workgroup: x over columns, y and z over rows and batch
//
// For hardware, if y is so small that whole tiles would leave most of it idle: the depth of a tile is split into
// slices of separate invocations, whose sums are added in workgroup memory at the end. Of several products
// of one a (`linears`), each a batch, the weights are separate buffers: b, b1, b2.

$product
$blocks

const slices = ${slices}u;
const lanes_x = ${tile_columns}u / 4u;
const tile_lanes = lanes_x * ${tile_rows}u / 4u;
const vectors = tile_lanes * 4u; // of four columns: [block][row]

// [vector][slice], with a different order of slices for each vector, to avoid bank conflicts.
var<workgroup> partial: array<vec4<f32>, vectors * slices>;

fn place_of(vector: u32, slice: u32) -> u32 { return vector * slices + (slice ^ (vector % 8u)); }

@compute @workgroup_size(tile_lanes * slices)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let tiles = (p.rows + ${tile_rows}u - 1u) / ${tile_rows}u;
  let item = group.z * groups.y + group.y;
  let batch = item / tiles;
  if (batch >= p.batch) { return; }
  let slice = lane % slices;
  let row = item % tiles * ${tile_rows}u + lane / slices / lanes_x * 4u;
  let column = group.x * ${tile_columns}u + lane / slices % lanes_x * 4u;
  let a_start = start_of(batch, p.a_offset, p.a_strides);
  let b_start = start_of(batch, p.b_offset, p.b_strides);

  // Two blocks of each at a time, so that all reads are in flight together; past the depth they are zeros.
  var sums = mat4x4<f32>();
  $add_products
  let block = lane / slices;
  partial[place_of(block * 4u, slice)] = sums[0];
  partial[place_of(block * 4u + 1u, slice)] = sums[1];
  partial[place_of(block * 4u + 2u, slice)] = sums[2];
  partial[place_of(block * 4u + 3u, slice)] = sums[3];
  workgroupBarrier();

  // All lanes add four slices of one of the tile's vectors each, then one lane per vector adds these sums.
  let vector = lane % vectors;
  let first = lane / vectors * 4u;
  let four = partial[place_of(vector, first)] + partial[place_of(vector, first + 1u)]
    + partial[place_of(vector, first + 2u)] + partial[place_of(vector, first + 3u)];
  workgroupBarrier();
  partial[lane] = four;
  workgroupBarrier();
  if (lane < vectors) {
    var total = vec4<f32>();
    for (var s = 0u; s < slices / 4u; s++) { total += partial[s * vectors + lane]; }
    let y = item % tiles * ${tile_rows}u + lane / 4u / lanes_x * 4u + lane % 4u;
    store_four(batch, y, group.x * ${tile_columns}u + lane / 4u % lanes_x * 4u, total);
  }
}
