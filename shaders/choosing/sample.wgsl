// y[row] = a token drawn from softmax(x[row] / temperature) after top-k, top-p and min-p; -1 if a score is NaN or +inf.
//
// bindings: 0 params · 1 x · 2 settings: temperature, top_k, top_p, min_p and the random number of each row · 3 y
// dispatch: one row per workgroup of `lanes`, spread over x and y
//
// Nothing is sorted. The key of a token is the bits of its distance below the maximum, divided by the temperature, so a
// smaller key is a larger score. A border of top-k or top-p is found by histograms of counts and masses over the keys,
// each over the bin of the one before that has the border. The draw is a prefix sum over the lanes, each of which
// has consecutive tokens. Tokens that are e^-30 times less likely than the first are left out.

struct Params {
  rows: u32,
  columns: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

const lanes = ${lanes}u;
const bits_of_lanes = ${bits}u; // 2^bits = lanes
const farthest = 0x41f00000u; // the bits of 30.0
$four

struct Border {
  begin: u32, // the keys that may be the border, up to `end`, which is beyond them
  end: u32,
  shift: u32, // of a key, for its bin
  done: u32,
  before: vec2<f32>, // (mass, count) of the keys below `begin`
  wanted: f32, // the mass or count to reach
  skipped: f32, // how many tokens with the key `begin` are left out, the first ones; above 0 only when done
}

var<workgroup> sums: array<vec2<f32>, lanes>;
var<workgroup> counts: array<atomic<u32>, lanes>;
var<workgroup> masses: array<atomic<u32>, 2u * lanes>; // in units of 2^-32; then of 1
var<workgroup> largest: atomic<u32>;
var<workgroup> smallest: atomic<u32>;
var<workgroup> reach: atomic<u32>;
var<workgroup> chosen: atomic<u32>;
var<workgroup> last: atomic<u32>;
var<workgroup> border: Border;
var<workgroup> uses: vec4<u32>; // whether scores are numbers, whether top-k and top-p apply

var<private> row: u32;
var<private> lane: u32;
var<private> vectors: u32; // of the row
var<private> top: f32;
var<private> inverse: f32; // of the temperature
var<private> nearest: u32; // the smallest key of this lane's vectors
var<private> end: u32; // keys from here on are left out
var<private> tied = ~0u; // a key of which the first `skipped` tokens are left out, too
var<private> tied_weight: f32;
var<private> skipped: f32;
var<private> least: f32; // weight of a token that stays

fn setting(i: u32) -> f32 { return load_settings(5u * row + i); }

fn key_of(score: f32) -> u32 {
  let distance = min((top - score) * inverse, 3e38f);
  return select(bitcast<u32>(distance), 0x7f800000u, bitcast<u32>(score) == 0xff800000u);
}
fn weight_of(key: u32) -> f32 { return exp(-bitcast<f32>(key)); }

// Sums over this lane and those before it, which are in `sums` then.
fn sum_up(own: vec2<f32>) -> vec2<f32> {
  workgroupBarrier();
  var sum = own;
  sums[lane] = sum;
  for (var step = 1u; step < lanes; step *= 2u) {
    workgroupBarrier();
    var more = vec2<f32>();
    if (lane >= step) { more = sums[lane - step]; }
    workgroupBarrier();
    sum += more;
    sums[lane] = sum;
  }
  workgroupBarrier();
  return sum;
}
fn sums_before() -> vec2<f32> { return select(vec2<f32>(), sums[max(lane, 1u) - 1u], lane > 0u); }

// Find the border of keys from 0 to `end`: of so many tokens, and those equal to the last; or by mass, of a part of all.
fn find_border(by_mass: bool, wanted: f32, limit: u32) {
  // First bins of equal width: a power of two, so that no bin divides equal keys.
  let scale = bitcast<f32>(clamp(253u + bits_of_lanes - (limit >> 23u), 1u, 227u) << 23u);
  workgroupBarrier();
  if (lane == 0u) { border = Border(0u, limit, 0u, 0u, vec2<f32>(), wanted, 0f); }
  var linear = true;
  loop {
    let b = workgroupUniformLoad(&border);
    if (b.done != 0u) { break; }
    atomicStore(&counts[lane], 0u);
    atomicStore(&masses[lane], 0u);
    atomicStore(&masses[lane + lanes], 0u);
    if (lane == 0u) { atomicStore(&chosen, ~0u); }
    workgroupBarrier();
    if (nearest < b.end) {
      for (var i = lane; i < vectors; i += lanes) {
        let v = four(row, i);
        for (var j = 0u; j < 4u; j++) {
          let key = key_of(v[j]);
          if (key >= b.begin && key < b.end) {
            let bin = min(select((key - b.begin) >> b.shift, u32(bitcast<f32>(key) * scale), linear), lanes - 1u);
            atomicAdd(&counts[bin], 1u);
            if (by_mass) {
              let mass = u32(min(weight_of(key) * 4294967296f + 0.5f, 4294967040f));
              let other = atomicAdd(&masses[bin], mass);
              if (other > ~mass) { atomicAdd(&masses[bin + lanes], 1u); }
            }
          }
        }
      }
    }
    workgroupBarrier();
    let mass = f32(atomicLoad(&masses[lane + lanes])) + f32(atomicLoad(&masses[lane])) * 2.3283064e-10f;
    let own = vec2<f32>(mass, f32(atomicLoad(&counts[lane])));
    let sum = b.before + sum_up(own);
    var goal = b.wanted;
    if (by_mass && linear) { goal *= sums[lanes - 1u].x; }
    if (own.y > 0f && select(sum.y, sum.x, by_mass) >= goal) { atomicMin(&chosen, lane); }
    workgroupBarrier();
    let bin = atomicLoad(&chosen);
    if (bin == ~0u && lane == 0u) { border.begin = b.end; border.done = 1u; } // by rounding: all of them stay
    if (bin == lane) {
      var next = b;
      next.before += sums_before();
      next.wanted = goal;
      if (linear) {
        next.begin = bitcast<u32>(f32(bin) / scale);
        next.end = min(bitcast<u32>(f32(bin + 1u) / scale), b.end);
        next.shift = u32(max(i32(firstLeadingBit(max(next.end - next.begin, 2u) - 1u)) + 1 - i32(bits_of_lanes), 0));
      } else {
        next.begin += bin << b.shift;
        next.end = min(next.begin + (1u << b.shift), b.end);
        next.shift = u32(max(i32(b.shift) - i32(bits_of_lanes), 0));
      }
      if (own.y < 2f) {
        next.begin = next.end;
        next.done = 1u;
      } else if (next.end - next.begin < 2u) {
        if (by_mass) { // of equal tokens the last ones stay
          next.skipped = own.y - clamp(ceil((goal - next.before.x) / weight_of(next.begin)), 1f, own.y);
        }
        next.done = 1u;
      }
      border = next;
    }
    linear = false;
  }
}

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
  let own_row = group.y * groups.x + group.x;
  if (own_row >= p.rows) { return; }
  row = own_row;
  lane = index;
  vectors = (p.columns + 3u) / 4u;
  var high = 0u;
  var low = ~0u;
  for (var i = lane; i < vectors; i += lanes) {
    let v = four(row, i);
    for (var j = 0u; j < 4u; j++) {
      let key = float_key(v[j]);
      high = max(high, key);
      low = min(low, select(~0u, key, key > lowest_key));
    }
  }
  if (lane == 0u) { atomicStore(&smallest, ~0u); }
  workgroupBarrier();
  atomicMax(&largest, high);
  atomicMin(&smallest, low);
  workgroupBarrier();
  let best = atomicLoad(&largest);
  top = of_key(best);
  inverse = 1f / setting(0u);
  nearest = select(0x7f800000u, key_of(of_key(high)), high > lowest_key);
  atomicMax(&reach, nearest);
  workgroupBarrier();
  if (lane == 0u) {
    let count = setting(1u);
    let numbers = best > lowest_key && best < infinity_key;
    uses = vec4<u32>(vec4<bool>(numbers, count > 0f && count < f32(p.columns), setting(2u) < 1f, false));
  }
  let used = workgroupUniformLoad(&uses);
  if (used.x == 0u) {
    if (lane == 0u) { store_y(row, -1); }
    return;
  }
  end = min(key_of(of_key(atomicLoad(&smallest))), farthest) + 1u;
  if (used.y != 0u) {
    // As many tokens as lanes are no farther than the farthest of the lanes' nearest ones.
    let bound = select(end, min(end, atomicLoad(&reach) + 1u), setting(1u) <= f32(lanes));
    find_border(false, setting(1u), bound);
    end = border.end;
  }
  if (used.z != 0u) {
    find_border(true, max(setting(2u), 0f), end);
    end = border.end;
    tied = border.begin;
    skipped = border.skipped;
  }

  // Sums of (mass, tokens with the key `tied`) over consecutive tokens.
  least = setting(3u);
  tied_weight = select(0f, weight_of(tied), tied < end && weight_of(tied) >= least);
  let length = 4u * ((vectors + lanes - 1u) / lanes);
  let start = lane * length;
  let stop = min(start + length, 4u * vectors);
  var own = vec2<f32>();
  for (var i = start; i < stop; i += 4u) {
    let v = four(row, i / 4u);
    for (var j = 0u; j < 4u; j++) { own += share(key_of(v[j])); }
  }
  let sum = sum_up(own);
  let before = sums_before();
  let aim = setting(4u) * mass_of(sums[lanes - 1u]);
  if (lane == 0u) { atomicStore(&chosen, ~0u); }
  workgroupBarrier();
  if (stays(own, before)) {
    atomicMax(&last, lane);
    if (mass_of(sum) > aim) { atomicMin(&chosen, lane); }
  }
  workgroupBarrier();
  if (lane == min(atomicLoad(&chosen), atomicLoad(&last))) { // no sum is above the aim, if it is near 1: by rounding
    var token = 0u;
    var run = vec2<f32>();
    for (var i = start; i < stop; i++) {
      let more = share(key_of(four(row, i / 4u)[i % 4u]));
      if (stays(more, before + run)) {
        token = i;
        if (mass_of(before + run + more) > aim) { break; }
      }
      run += more;
    }
    store_y(row, i32(token));
  }
}

// What a token adds to the sums.
fn share(key: u32) -> vec2<f32> {
  if (key >= end) { return vec2<f32>(); }
  if (key == tied) { return vec2<f32>(0f, 1f); }
  let weight = weight_of(key);
  return vec2<f32>(select(0f, weight, weight >= least), 0f);
}
fn mass_of(sum: vec2<f32>) -> f32 { return sum.x + tied_weight * max(sum.y - skipped, 0f); }

// Return whether any of the tokens that add `more` to the sums can be drawn.
fn stays(more: vec2<f32>, sum: vec2<f32>) -> bool {
  return more.x > 0f || (more.y > 0f && tied_weight > 0f && sum.y + more.y > skipped);
}
