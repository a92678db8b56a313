// fuzz_kernel SECONDS SEED: random scenes, poses and cameras, most of them nonsense, through the whole kernel under
// AddressSanitizer and UBSan. Whatever the numbers, every byte of the picture is written and none outside it, and solved
// colours are colours.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>

#include "kernel.cpp"

struct Random {
  std::mt19937_64 bits;
  int whole(int low, int high) { return low + (int)(bits() % (uint64_t)(high - low + 1)); }
  bool chance(int percent) { return whole(1, 100) <= percent; }
  float uniform(float low, float high) { return low + (high - low) * (bits() >> 40) / (float)(1 << 24); }
  // Mostly sane, sometimes huge, tiny or any bit pattern at all, NaN and Inf included.
  float number(float low, float high, int nonsense_percent) {
    if (!chance(nonsense_percent)) return uniform(low, high);
    switch (whole(0, 3)) {
      case 0: return 0.f;
      case 1: return uniform(-1.f, 1.f) * 1e30f;
      case 2: return uniform(-1.f, 1.f) * 1e-30f;
      default: {
        const uint32_t raw = (uint32_t)bits();
        float x;
        memcpy(&x, &raw, 4);
        return x;
      }
    }
  }
  std::vector<float> numbers(size_t n, float low, float high, int nonsense_percent) {
    std::vector<float> out(n);
    for (float& x : out) x = number(low, high, nonsense_percent);
    return out;
  }
};

static size_t picture_bytes(const lhm_frame& f) {
  const size_t pixels = (size_t)f.width * f.height;
  switch (static_cast<PixelFormat>(f.pixel_format)) {
    case PixelFormat::kRgb: return pixels * 3;
    case PixelFormat::kI420:
    case PixelFormat::kI420Full: return pixels * 3 / 2;
    case PixelFormat::kI420Alpha: return pixels * 3;
    case PixelFormat::kFloat: return pixels * 16;
    default: return pixels * 4;
  }
}

// Lists what the frame's pixels are made of into arrays of exactly that size, then solves for colours with it.
static void weigh_and_solve(Random& random, lhm_scene* scene, const lhm_frame& f, int count, int nonsense) {
  const size_t pixels = (size_t)f.width * f.height;
  const std::unique_ptr<int64_t[]> begin(new int64_t[pixels + 1]);
  const float least = random.chance(50) ? 0.f : random.uniform(0, 1);
  int status = lhm_scene_weigh(scene, &f, least, 0, begin.get(), nullptr, nullptr);
  if (status == LHM_TOO_DENSE) return;
  const int64_t pairs = begin[pixels];
  if (status != (pairs ? LHM_TOO_SMALL : LHM_OK)) std::abort();
  const std::unique_ptr<int32_t[]> gaussian(new int32_t[pairs]);
  const std::unique_ptr<float[]> weight(new float[pairs]);
  status = lhm_scene_weigh(scene, &f, least, pairs, begin.get(), gaussian.get(), weight.get());
  if (status != LHM_OK || begin[0] != 0 || begin[pixels] != pairs) std::abort();
  for (size_t pixel = 0; pixel < pixels; pixel++) {
    float sum = 0;
    for (int64_t i = begin[pixel]; i < begin[pixel + 1]; i++) {
      if (gaussian[i] < 0 || gaussian[i] >= count || !(weight[i] > least)) std::abort();
      sum += weight[i];
    }
    if (!(sum < 1.001f)) std::abort();
  }
  const auto wanted = random.numbers(3 * pixels, 0, 1, nonsense), trust = random.numbers(pixels, 0, 1, nonsense),
             step = random.numbers(count, 0, 2, nonsense), limit = random.numbers(count, 0, .5f, nonsense),
             rgb = random.numbers(3 * count, 0, 1, 0);
  const std::unique_ptr<float[]> solved(new float[3 * count]);
  const lhm_colour_problem problem = {count, (int64_t)pixels, begin.get(), gaussian.get(), weight.get(), wanted.data(),
                                      trust.data(), step.data(), limit.data(), random.whole(0, 3), rgb.data(), solved.get()};
  if (lhm_solve_colours(&problem) != LHM_OK) std::abort();
  for (int i = 0; i < 3 * count; i++)
    if (!(solved[i] >= 0 && solved[i] <= 1)) std::abort();
}

static void draw_random_scene(Random& random) {
  const int count = random.chance(10) ? random.whole(0, 2) : random.whole(0, 400), k = random.whole(1, 8);
  const int nonsense = random.chance(50) ? 0 : random.whole(1, 30);
  const int moved_count = count ? random.whole(0, count) : 0, coefficients = random.whole(0, 6);
  const auto means = random.numbers(3 * count, -1, 1, nonsense), rgb = random.numbers(3 * count, 0, 1, nonsense),
             opacity = random.numbers(count, 0, 1, nonsense), weights = random.numbers(count * k, 0, 1, nonsense),
             directions = random.numbers((size_t)moved_count * coefficients * 3, -.1f, .1f, nonsense);
  const float size = std::pow(10.f, random.uniform(-8, 1));
  const auto covariances = random.numbers(6 * count, -size, size, nonsense);
  std::vector<uint8_t> joints((size_t)count * k), constrained(count);
  for (auto& j : joints) j = (uint8_t)random.whole(0, 54);
  for (auto& c : constrained) c = random.chance(20);
  std::vector<int32_t> moved(moved_count);
  for (int i = 0; i < moved_count; i++) moved[i] = i;
  const lhm_scene_desc desc = {count, k, means.data(), covariances.data(), opacity.data(), rgb.data(), joints.data(),
                               weights.data(), constrained.data(), moved_count, coefficients, moved.data(),
                               directions.data(), random.whole(1, 3)};
  const std::unique_ptr<lhm_scene, void (*)(lhm_scene*)> scene(lhm_scene_create(&desc), lhm_scene_destroy);
  for (int frames = random.whole(1, 3); frames > 0; frames--) {
    const auto matrices = random.numbers(55 * 12, -1, 1, nonsense), expression = random.numbers(coefficients, 0, 1, nonsense);
    lhm_frame f = {};
    f.joint_matrices = random.chance(80) ? matrices.data() : nullptr;
    f.joints = 55;
    f.expression = expression.data();
    for (float& r : f.R_camera_world) r = random.number(-1, 1, nonsense);
    for (float& t : f.t_camera_world) t = random.number(-2, 4, nonsense);
    const int side = random.chance(90) ? 90 : 8192;
    f.width = random.whole(1, side), f.height = random.whole(1, side == 8192 ? 40 : side);
    f.pixel_format = random.whole(0, 6);
    if (f.pixel_format >= (int)PixelFormat::kI420 && f.pixel_format <= (int)PixelFormat::kI420Alpha)
      f.width += f.width & 1, f.height += f.height & 1;
    f.fx = std::fabs(random.number(1, 2000, nonsense)), f.fy = std::fabs(random.number(1, 2000, nonsense));
    f.cx = random.number(0, f.width, nonsense), f.cy = random.number(0, f.height, nonsense);
    f.stop_rule = random.whole(0, 1);
    const std::unique_ptr<uint8_t[]> pixels(new uint8_t[picture_bytes(f)]);  // exact: one byte more is caught
    const std::unique_ptr<float[]> depth(new float[(size_t)f.width * f.height]);
    double stage_ms[4];
    int64_t counts[2];
    f.pixels = pixels.get(), f.depth = random.chance(50) ? depth.get() : nullptr;
    f.stage_ms = stage_ms, f.counts = counts;
    const int status = lhm_scene_render(scene.get(), &f);
    if (status != LHM_OK && status != LHM_TOO_DENSE) std::abort();
    if (random.chance(30)) weigh_and_solve(random, scene.get(), f, count, nonsense);
  }
}

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 60;
  Random random{std::mt19937_64(argc > 2 ? std::atoll(argv[2]) : 1)};
  const auto start = std::chrono::steady_clock::now();
  int scenes = 0;
  for (; std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds; scenes++)
    draw_random_scene(random);
  std::printf("%d scenes without a fault\n", scenes);
  return scenes == 0;
}
