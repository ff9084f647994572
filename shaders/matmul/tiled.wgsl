// y[..., m, n] = activation(sum over k of a[..., m, k] * b[..., k, n] + bias[n]) + residual[..., m, n], any strides.
//
// bindings: 0 params · 1 a · 2 b · bias and residual, where they are · last y
// dispatch: a tile of y a workgroup: x over columns, y and z over rows and batch
//
// For hardware. A workgroup keeps slices of a and b, eight deep, in its memory, neighbouring rows of a side by side;
// an invocation has 8 x 8 of the tile's sums in registers. While a slice is multiplied, the next is on its way: first
// into registers, then into the other half of the memory, so a step has one barrier. While one k is multiplied, the
// vectors of the next are on their way from workgroup memory. All that is kept is named: arrays that loops index leave
// the registers (2 instead of 38 TFLOP/s).

$product

const tile_rows = ${tile_rows}u;
const tile_columns = ${tile_columns}u;
const depth = 8u; // of a slice
const a_width = tile_rows / 4u; // vectors of one k in workgroup memory
const b_width = tile_columns / 4u;
const a_blocks = a_width * 2u; // of 4 x 4, that a slice has
const blocks = a_blocks + b_width * 2u; // no more than lanes
const lanes = tile_rows * tile_columns / 64u;

var<workgroup> a_slice: array<vec4<f32>, 2u * depth * a_width>;
var<workgroup> b_slice: array<vec4<f32>, 2u * depth * b_width>;

// Where block `i` of an operand's slice lies: its k / 4, its row or column / 4. Neighbouring lanes take neighbours in
// memory.
fn place_of(i: u32, width: u32, by_depth: bool) -> vec2<u32> {
  if (by_depth) { return vec2<u32>(i % 2u, i / 2u); }
  return vec2<u32>(i / width, i % width);
}

// The block of the slice from `k` on that this lane brings; past the depth it is zeros, and nothing is read.
fn fetch(lane: u32, a_start: i32, b_start: i32, row: u32, column: u32, k: u32) -> mat4x4<f32> {
  if (lane < a_blocks) {
    let at = place_of(lane, a_width, a_by_depth);
    return block_a(a_start, row + at.y * 4u, k + at.x * 4u);
  }
  if (lane < blocks) {
    let at = place_of(lane - a_blocks, b_width, b_by_depth);
    return block_b(b_start, column + at.y * 4u, k + at.x * 4u);
  }
  return mat4x4<f32>();
}

// Puts it into half `half` of the workgroup's memory.
fn put(lane: u32, half: u32, block: mat4x4<f32>) {
  if (lane < a_blocks) {
    let at = place_of(lane, a_width, a_by_depth);
    let first = (half * depth + at.x * 4u) * a_width + at.y;
    a_slice[first] = block[0];
    a_slice[first + a_width] = block[1];
    a_slice[first + 2u * a_width] = block[2];
    a_slice[first + 3u * a_width] = block[3];
  } else if (lane < blocks) {
    let at = place_of(lane - a_blocks, b_width, b_by_depth);
    let first = (half * depth + at.x * 4u) * b_width + at.y;
    b_slice[first] = block[0];
    b_slice[first + b_width] = block[1];
    b_slice[first + 2u * b_width] = block[2];
    b_slice[first + 3u * b_width] = block[3];
  }
}

fn outer_product(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(b * a.x, b * a.y, b * a.z, b * a.w);
}

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let tiles = (p.rows + tile_rows - 1u) / tile_rows;
  let item = group.z * groups.y + group.y;
  let batch = item / tiles;
  if (batch >= p.batch) { return; }
  let row = item % tiles * tile_rows;
  let column = group.x * tile_columns;
  let a_start = start_of(batch, p.a_offset, p.a_strides);
  let b_start = start_of(batch, p.b_offset, p.b_strides);
  // 32 lanes have 32 x 64 sums, two rows of lanes in turn: so their reads of workgroup memory do not collide.
  let warp = lane / 32u;
  let x = warp % (tile_columns / 64u) * 16u + lane / 2u % 8u;
  let y = warp / (tile_columns / 64u) * 8u + lane / 16u % 2u * 2u + lane % 2u;

  var c00 = mat4x4<f32>(); var c01 = mat4x4<f32>();
  var c10 = mat4x4<f32>(); var c11 = mat4x4<f32>();
  var half = 0u;
  put(lane, half, fetch(lane, a_start, b_start, row, column, 0u));
  for (var k = 0u; k < p.depth; k += depth) {
    workgroupBarrier();
    let next = fetch(lane, a_start, b_start, row, column, k + depth);
    let a_at = half * depth * a_width + y;
    let b_at = half * depth * b_width + x;
    var a0 = a_slice[a_at]; var a1 = a_slice[a_at + 4u];
    var b0 = b_slice[b_at]; var b1 = b_slice[b_at + 8u];
    for (var d = 0u; d < depth; d++) {
      let after = min(d + 1u, depth - 1u);
      let a0_after = a_slice[a_at + after * a_width]; let a1_after = a_slice[a_at + after * a_width + 4u];
      let b0_after = b_slice[b_at + after * b_width]; let b1_after = b_slice[b_at + after * b_width + 8u];
      c00 += outer_product(a0, b0); c01 += outer_product(a0, b1);
      c10 += outer_product(a1, b0); c11 += outer_product(a1, b1);
      a0 = a0_after; a1 = a1_after;
      b0 = b0_after; b1 = b1_after;
    }
    half = 1u - half;
    put(lane, half, next);
  }
  store_block(batch, row + y * 4u, column + x * 4u, c00);
  store_block(batch, row + y * 4u, column + x * 4u + 32u, c01);
  store_block(batch, row + y * 4u + 16u, column + x * 4u, c10);
  store_block(batch, row + y * 4u + 16u, column + x * 4u + 32u, c11);
}
