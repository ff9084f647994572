// y[row] = a token drawn from softmax(x[row] / temperature) after top-k, top-p and min-p; -1 if a score is NaN or +inf.
//
// bindings: 0 params · 1 x · 2 settings: temperature, top_k, top_p, min_p and the random number of each row · 3 y
// dispatch: one row per workgroup of `lanes`, spread over x and y
//
// Nothing is sorted. The key of a token is the bits of its distance below the maximum, divided by the temperature, so a
// smaller key is a larger score. The border of top-k or top-p is found by histograms of counts and masses over the keys,
// each over the bin of the one before that has the border. The draw is a prefix sum over blocks of consecutive tokens,
// a block a lane, then over the tokens of a block. Masses are added as integers: their order does not matter. Tokens that
// are e^-30 times less likely than the first are left out.

struct Params {
  rows: u32,
  columns: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

const bits_of_lanes = ${bits}u; // 2^bits = lanes
const summed = bits_of_lanes % 2u * lanes; // where in `sums` the results are
const farthest = 0x41f00000u; // the bits of 30.0
const excluded = 0x7f800000u; // the key of minus infinity
$scores

struct Border {
  begin: u32, // the keys that may be the border, up to `end`, which is beyond them
  end: u32,
  shift: u32, // of a key, for its bin
  done: u32,
  before: vec2<f32>, // (mass, count) of the keys below `begin`
  goal: f32, // the mass or count to reach
  skipped: f32, // how many tokens with the key `begin` are left out, the first ones; above 0 only when done
}

var<workgroup> sums: array<vec2<f32>, 2u * lanes>;
var<workgroup> counts: array<atomic<u32>, lanes>;
var<workgroup> masses: array<atomic<u32>, 2u * lanes>; // in units of 2^-32; then of 1
var<workgroup> largest: atomic<u32>;
var<workgroup> smallest: atomic<u32>;
var<workgroup> reach: atomic<u32>;
var<workgroup> chosen: atomic<u32>;
var<workgroup> last: atomic<u32>;
var<workgroup> border: Border;
var<workgroup> uses: vec3<u32>; // whether top-k and top-p apply, and whether the scores are numbers

var<private> lane: u32;
var<private> top: f32;
var<private> inverse: f32; // of the temperature
var<private> end: u32; // keys from here on are left out
var<private> tied: u32; // a key of which the first `skipped` tokens are left out, too
var<private> tied_weight: f32;
var<private> skipped: f32;
var<private> least: f32; // weight of a token that stays

fn key_of(score: f32) -> u32 {
  let distance = min((top - score) * inverse, 3e38f);
  return select(bitcast<u32>(distance), excluded, bitcast<u32>(score) == 0xff800000u);
}
fn weight_of(key: u32) -> f32 { return exp(-bitcast<f32>(key)); }

fn clear_bins() {
  atomicStore(&counts[lane], 0u);
  atomicStore(&masses[lane], 0u);
  atomicStore(&masses[lane + lanes], 0u);
  if (lane == 0u) {
    atomicStore(&chosen, ~0u);
    atomicStore(&last, 0u);
  }
  workgroupBarrier();
}
fn add_mass(bin: u32, mass: f32) {
  let whole = u32(mass);
  let part = u32(min(fract(mass) * 4294967296f + 0.5f, 4294967040f));
  let other = atomicAdd(&masses[bin], part);
  let carry = whole + u32(other > ~part);
  if (carry > 0u) { atomicAdd(&masses[bin + lanes], carry); }
}
// (mass, count) of the bin of this lane.
fn own_bin() -> vec2<f32> {
  workgroupBarrier();
  let mass = f32(atomicLoad(&masses[lane + lanes])) + f32(atomicLoad(&masses[lane])) * 2.3283064e-10f;
  return vec2<f32>(mass, f32(atomicLoad(&counts[lane])));
}

// Sums over this lane and those before it, by doubling steps from one half of `sums` to the other.
fn sum_up(own: vec2<f32>) -> vec2<f32> {
  workgroupBarrier();
  var sum = own;
  var half = 0u;
  sums[lane] = sum;
  for (var step = 1u; step < lanes; step *= 2u) {
    workgroupBarrier();
    if (lane >= step) { sum += sums[half + lane - step]; }
    half = lanes - half;
    sums[half + lane] = sum;
  }
  workgroupBarrier();
  return sum;
}
fn sums_before(i: u32) -> vec2<f32> { return select(vec2<f32>(), sums[summed + max(i, 1u) - 1u], i > 0u); }
fn whole_sum() -> vec2<f32> { return sums[summed + lanes - 1u]; }

// What a token adds to sums of (mass, tokens with the key `tied`).
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

// Return the first lane whose sum exceeds `aim`; by rounding it may be none, and the last lane that adds something is it.
fn find_lane(own: vec2<f32>, before: vec2<f32>, aim: f32) -> u32 {
  if (stays(own, before)) {
    atomicMax(&last, lane);
    if (mass_of(before + own) > aim) { atomicMin(&chosen, lane); }
  }
  workgroupBarrier();
  return min(atomicLoad(&chosen), atomicLoad(&last));
}

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
  let row = group.y * groups.x + group.x;
  if (row >= p.rows) { return; }
  lane = index;
  let vectors = (p.columns + 3u) / 4u;
  $hold
  var high = 0u;
  var low = ~0u;
  $each
    for (var j = 0u; j < kept_vectors; j++) { // past the end, the last vector is loaded again
      for (var k = 0u; k < 4u; k++) {
        let key = float_key(kept[j][k]);
        high = max(high, key);
        low = min(low, select(~0u, key, key > lowest_key));
      }
    }
  }
  if (lane == 0u) { atomicStore(&smallest, ~0u); }
  workgroupBarrier();
  atomicMax(&largest, high);
  atomicMin(&smallest, low);
  workgroupBarrier();
  let best = atomicLoad(&largest);
  let at = 5u * row;
  let settings = vec4<f32>(load_settings(at + 1u), load_settings(at + 2u), load_settings(at + 3u), load_settings(at + 4u));
  top = of_key(best);
  inverse = 1f / load_settings(at);
  let nearest = select(excluded, key_of(of_key(high)), high > lowest_key); // of this lane's tokens
  atomicMax(&reach, nearest);
  workgroupBarrier();
  if (lane == 0u) {
    let numbers = best > lowest_key && best < infinity_key;
    uses = vec3<u32>(vec3<bool>(settings.x > 0f && settings.x < f32(p.columns), settings.y < 1f, numbers));
  }
  let used = workgroupUniformLoad(&uses);
  if (used.z == 0u) {
    if (lane == 0u) { store_y(row, -1); }
    return;
  }

  // The borders of top-k, by count, and of top-p, by the mass of a part of all.
  end = min(key_of(of_key(atomicLoad(&smallest))), farthest) + 1u;
  tied = ~0u;
  for (var by_mass = 0u; by_mass < 2u; by_mass++) {
    if (used[by_mass] == 0u) { continue; }
    var bound = end;
    if (by_mass == 0u && settings.x <= f32(lanes) && vectors >= lanes) { // each lane has a token at most that far
      bound = min(end, atomicLoad(&reach) + 1u);
    }
    // First bins of equal width: a power of two, so that no bin divides equal keys.
    let scale = bitcast<f32>(clamp(253u + bits_of_lanes - (bound >> 23u), 1u, 227u) << 23u);
    var linear = true;
    workgroupBarrier();
    if (lane == 0u) { border = Border(0u, bound, 0u, 0u, vec2<f32>(), max(settings[by_mass], 0f), 0f); }
    loop {
      let b = workgroupUniformLoad(&border);
      if (b.done != 0u) { break; }
      clear_bins();
      if (nearest < b.end) {
        $each
          for (var j = 0u; j < kept_vectors; j++) {
            for (var k = 0u; k < 4u; k++) {
              let key = key_of(kept[j][k]);
              if (key >= b.begin && key < b.end && first + j * lanes < vectors) {
                let bin = min(select((key - b.begin) >> b.shift, u32(bitcast<f32>(key) * scale), linear), lanes - 1u);
                atomicAdd(&counts[bin], 1u);
                if (by_mass == 1u) { add_mass(bin, weight_of(key)); }
              }
            }
          }
        }
      }
      let own = own_bin();
      let sum = b.before + sum_up(own);
      var goal = b.goal;
      if (by_mass == 1u && linear) { goal *= whole_sum().x; }
      if (own.y > 0f && select(sum.y, sum.x, by_mass == 1u) >= goal) { atomicMin(&chosen, lane); }
      workgroupBarrier();
      let bin = atomicLoad(&chosen);
      if (bin == ~0u && lane == 0u) { // by rounding: all of them stay
        border.begin = b.end;
        border.done = 1u;
      }
      if (bin == lane) {
        var next = b;
        next.before += sums_before(lane);
        next.goal = goal;
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
          if (by_mass == 1u) { // of equal tokens the last ones stay
            next.skipped = own.y - clamp(ceil((goal - next.before.x) / weight_of(next.begin)), 1f, own.y);
          }
          next.done = 1u;
        }
        border = next;
      }
      linear = false;
    }
    end = border.end;
    if (by_mass == 1u) {
      tied = border.begin;
      skipped = border.skipped;
    }
  }

  // The block of consecutive tokens in which the draw ends, then the token.
  least = settings.z;
  tied_weight = select(0f, weight_of(tied), tied < end && weight_of(tied) >= least);
  let length = (vectors + lanes - 1u) / lanes; // vectors of a block
  workgroupBarrier();
  clear_bins();
  if (nearest < end) {
    $each
      for (var j = 0u; j < kept_vectors; j++) {
        let i = first + j * lanes;
        let v = kept[j];
        let more = share(key_of(v.x)) + share(key_of(v.y)) + share(key_of(v.z)) + share(key_of(v.w));
        if (i < vectors && (more.x > 0f || more.y > 0f)) {
          add_mass(i / length, more.x);
          atomicAdd(&counts[i / length], u32(more.y));
        }
      }
    }
  }
  let mass = own_bin();
  sum_up(mass);
  let aim = settings.w * mass_of(whole_sum());
  let block = find_lane(mass, sums_before(lane), aim);
  let before = sums_before(block);
  workgroupBarrier();
  clear_bins();
  let width = (4u * length + lanes - 1u) / lanes; // tokens of a lane
  let begin = lane * width;
  let stop = select(0u, min(begin + width, 4u * length), begin < 4u * length);
  var own = vec2<f32>();
  for (var i = begin; i < stop; i++) { own += share_of(row, 4u * length * block + i); }
  sum_up(own);
  var run = before + sums_before(lane);
  if (lane == find_lane(own, run, aim)) {
    var token = 0u;
    for (var i = begin; i < stop; i++) {
      let more = share_of(row, 4u * length * block + i);
      if (stays(more, run)) {
        token = 4u * length * block + i;
        if (mass_of(run + more) > aim) { break; }
      }
      run += more;
    }
    store_y(row, i32(token));
  }
}

fn share_of(row: u32, token: u32) -> vec2<f32> {
  if (token >= p.columns) { return vec2<f32>(); }
  return share(key_of(load_score(row, token)));
}
