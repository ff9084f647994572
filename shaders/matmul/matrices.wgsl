// y[..., m, n] = activation(sum over k of a[..., m, k] * b[..., k, n] + bias[n]) + residual[..., m, n], a and b float16.
//
// bindings: 0 params · 1 a · 2 b · bias and residual, where they are · last y
// dispatch: a tile of y a workgroup: x over columns, y and z over rows and batch
//
// For hardware whose subgroups of 32 multiply matrices: 16 x 16 of float16, summed in float32. Four subgroups share a
// tile, two by two. A slice of each operand has in workgroup memory the order of its buffer, by depth or across it;
// while it is multiplied, the next one is loaded to registers.
//
// The bounds checks of browsers matter here. A matrix read at an offset that cannot be proven to be inside of an
// array becomes a branch, which halves the speed: so a subgroup reads its part of a slice through a view of exactly
// that size, at constants (`multiply` of kernels/subgroup_gemm.py).
diagnostic(off, chromium.subgroup_matrix_uniformity);
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;

$product

const lanes = 128u;
const band = ${band}u; // columns of a subgroup
const band_stride = band + 4u; // the 4 avoid bank conflicts

var<workgroup> slices: buffer<${bytes}>; // a's, then b's; at the end four bands of 16 rows of float32, a subgroup each

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_invocation_id) own: u32) {
  let tiles = (p.rows + ${tile_rows}u - 1u) / ${tile_rows}u;
  let item = group.z * groups.y + group.y;
  let batch = item / tiles;
  if (batch >= p.batch) { return; }
  let row = item % tiles * ${tile_rows}u;
  let column = group.x * ${tile_columns}u;
  let a_start = start_of(batch, p.a_offset, p.a_strides);
  let b_start = start_of(batch, p.b_offset, p.b_strides);
  let halves = bufferView<array<vec4<u32>, ${bytes} / 16>>(&slices, 0);
  let a_part = bufferView<array<f16, $a_part_size>>(&slices, $a_part_start);
  let b_part = bufferView<array<f16, $b_part_size>>(&slices, $b_part_start);
  $places
  $sums
  $fetch_first
  $put
  workgroupBarrier();
  for (var k = ${tile_depth}u; k < p.depth + ${tile_depth}u; k += ${tile_depth}u) {
    $fetch
    $multiply
    workgroupBarrier();
    $put
    workgroupBarrier();
  }

  // Results go through workgroup memory, 16 rows of each subgroup at a time.
  let place = subgroup * 16u * band_stride;
  let results = bufferView<array<f32, 16 * band_stride>>(&slices, place * 4u);
  let fours = bufferView<array<vec4<f32>, 4 * band_stride>>(&slices, place * 4u);
  let first_row = row + subgroup / 2u * ${tile_rows}u / 2u;
  let first_column = column + subgroup % 2u * band;
  $store
}
