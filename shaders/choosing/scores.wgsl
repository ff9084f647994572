// Shared by the kernels of this folder: rows of scores in vectors of four, and keys that order them.
//
// A lane reads every `lanes`-th vector, several before it uses the first one. Those of a short row stay in registers.

const lanes = ${lanes}u;
const kept_vectors = ${kept}u;

const nan_key = 0xffffffffu; // see float_key
const infinity_key = 0xff800000u;
const lowest_key = 0x007fffffu; // of minus infinity

fn of_key(key: u32) -> f32 { return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u)); }

// Four neighbours of a row, minus infinity past its end.
fn load_score(row: u32, i: u32) -> f32 { return load_x(row * p.columns + i); }
fn four(row: u32, i: u32) -> vec4<f32> {
  $value
}
