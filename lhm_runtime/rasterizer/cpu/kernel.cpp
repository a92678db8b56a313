// The frame, read top to bottom: warp and project, sort, bin, blend and write; or, in place of the last, weigh.
#include "kernel.h"

#include <atomic>
#include <ctime>

#include "colours.h"
#include "output.h"
#include "threads.h"
#include "weigh.h"

using namespace lhm;

constexpr int kMaxJoints = 256;

struct lhm_scene {
  Gaussians gaussians;
  Pool pool;
  Bins bins;
  Array<Splat> splats;

  explicit lhm_scene(const lhm_scene_desc& d) : gaussians(d), pool(d.threads), splats((size_t)gaussians.blocks * kBlock) {}
};

static double thread_ms() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

static void warp_and_project(lhm_scene& s, const lhm_frame& f) {
  const Gaussians& g = s.gaussians;
  alignas(64) float joints16[kMaxJoints * 16] = {};
  if (f.joint_matrices)
    for (int j = 0; j < f.joints; j++) memcpy(joints16 + 16 * j, f.joint_matrices + 12 * j, 12 * sizeof(float));
  s.bins.start(g.count, f.width, f.height);
  Posed posed;
  Projected p;
  for (int block = 0; block < g.blocks; block++) {
    warp_block(g, block, f.joint_matrices ? joints16 : nullptr, f.expression, posed);
    project_block(g, block, f, posed, p);
    const int first = block * kBlock, n = std::min(kBlock, g.count - first);
    for (int i = 0; i < n; i++) {
      const int at = first + i;
      s.splats[at] = {p.u[i], p.v[i], p.p[i], p.q[i], p.r[i], g.log2_opacity[at], g.rgb[0][at], g.rgb[1][at], g.rgb[2][at],
                      p.radius2[i], p.radius_x[i], p.radius_y[i], p.depth[i], {}};
      Bins::add(s.bins, at, p.depth[i],
                {(uint16_t)(p.x0[i] / kTile), (uint16_t)(p.y0[i] / kTile), (uint16_t)(p.x1[i] / kTile),
                 (uint16_t)(p.y1[i] / kTile)});
    }
  }
}

struct BlendJob {
  lhm_scene& scene;
  const lhm_frame& frame;
  std::atomic<int> next_tile{0};
};

template <StopRule kRule, bool kDepth>
static void blend_tiles(void* context) {
  const FlushDenormals flush;
  BlendJob& job = *static_cast<BlendJob*>(context);
  const Bins& bins = job.scene.bins;
  const lhm_frame& f = job.frame;
  alignas(64) PixelBlock blocks[kBlocks];
  TilePlanes planes;
  for (int tile; (tile = job.next_tile.fetch_add(1)) < bins.tiles_x * bins.tiles_y;) {
    const int X0 = tile % bins.tiles_x * kTile, Y0 = tile / bins.tiles_x * kTile;
    const uint32_t begin = bins.begin[tile], count = bins.begin[tile + 1] - begin;
    if (count) {
      blend_tile<kRule, kDepth>(job.scene.splats.data(), &bins.list[begin], (int)count, X0, Y0, f.width, f.height, blocks);
      gather(blocks, kDepth, planes);
      write_tile(f, planes, X0, Y0);
    } else {
      write_empty_tile(f, X0, Y0);
    }
  }
}

static void blend(lhm_scene& s, const lhm_frame& f) {
  BlendJob job{s, f};
  const bool gsplat = f.stop_rule == (int)StopRule::kGsplat;
  s.pool.run(gsplat ? (f.depth ? blend_tiles<StopRule::kGsplat, true> : blend_tiles<StopRule::kGsplat, false>)
                    : (f.depth ? blend_tiles<StopRule::kInclusive, true> : blend_tiles<StopRule::kInclusive, false>),
             &job);
}

template <class Show>
static void weigh(const lhm_scene& s, const lhm_frame& f, float least, const Show& show) {
  alignas(64) PixelBlock blocks[kBlocks];
  const Bins& bins = s.bins;
  const auto weigh_one = f.stop_rule == (int)StopRule::kGsplat ? weigh_tile<StopRule::kGsplat, Show>
                                                                : weigh_tile<StopRule::kInclusive, Show>;
  for (int tile = 0; tile < bins.tiles_x * bins.tiles_y; tile++)
    if (const int count = (int)(bins.begin[tile + 1] - bins.begin[tile]))
      weigh_one(s.splats.data(), &bins.list[bins.begin[tile]], count, tile % bins.tiles_x * kTile,
                tile / bins.tiles_x * kTile, f.width, f.height, blocks, least, show);
}

LHM_API lhm_scene* lhm_scene_create(const lhm_scene_desc* desc) try {
  return new lhm_scene(*desc);
} catch (const std::exception&) { // memory, or threads the system does not grant
  return nullptr;
}

LHM_API void lhm_scene_destroy(lhm_scene* scene) { delete scene; }

LHM_API int32_t lhm_scene_render(lhm_scene* scene, const lhm_frame* frame) try {
  double clock[5];
  int mark = 0;
  const auto stage = [&] {
    if (frame->stage_ms) clock[mark++] = thread_ms();
  };
  bool listed;
  {
    const FlushDenormals flush;
    stage();
    warp_and_project(*scene, *frame);
    stage();
    scene->bins.sort_by_depth();
    stage();
    listed = scene->bins.list_by_tile();
    stage();
  }
  if (frame->counts) frame->counts[0] = scene->bins.visible, frame->counts[1] = scene->bins.entries;
  if (!listed) return LHM_TOO_DENSE;
  blend(*scene, *frame);
  stage();
  for (int i = 0; frame->stage_ms && i < 4; i++) frame->stage_ms[i] = clock[i + 1] - clock[i];
  return LHM_OK;
} catch (const std::bad_alloc&) {
  return LHM_OUT_OF_MEMORY;
}

LHM_API int32_t lhm_scene_weigh(lhm_scene* scene, const lhm_frame* frame, float least, int64_t capacity,
                                int64_t* pixel_begin, int32_t* gaussian, float* weight) try {
  const FlushDenormals flush;
  warp_and_project(*scene, *frame);
  scene->bins.sort_by_depth();
  const bool listed = scene->bins.list_by_tile();
  if (frame->counts) frame->counts[0] = scene->bins.visible, frame->counts[1] = scene->bins.entries;
  if (!listed) return LHM_TOO_DENSE;
  const size_t pixels = (size_t)frame->width * frame->height;
  std::fill_n(pixel_begin, pixels + 1, 0);
  weigh(*scene, *frame, least, [&](size_t pixel, uint32_t, float) { pixel_begin[pixel + 1]++; });
  for (size_t pixel = 0; pixel < pixels; pixel++) pixel_begin[pixel + 1] += pixel_begin[pixel];
  if (pixel_begin[pixels] > capacity) return LHM_TOO_SMALL;
  Array<int64_t> next(pixel_begin, pixel_begin + pixels);
  weigh(*scene, *frame, least, [&](size_t pixel, uint32_t index, float share) {
    const int64_t at = next[pixel]++;
    gaussian[at] = (int32_t)index, weight[at] = share;
  });
  return LHM_OK;
} catch (const std::bad_alloc&) {
  return LHM_OUT_OF_MEMORY;
}

LHM_API int32_t lhm_solve_colours(const lhm_colour_problem* problem) try {
  const FlushDenormals flush;
  solve_colours(*problem);
  return LHM_OK;
} catch (const std::bad_alloc&) {
  return LHM_OUT_OF_MEMORY;
}

LHM_API void lhm_contract(double out[8]) {
  const double numbers[8] = {kEps2d, kNear, kAlphaMin, kAlphaMax, kTransmittanceStop, kFovMargin, (double)kMaxTileEntries, kLanes};
  std::copy_n(numbers, 8, out);
}

LHM_API int32_t lhm_cpu_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  return v4 ? 4 : v3 ? 3 : 2;
#else
  return 0;
#endif
}
