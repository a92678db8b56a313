// C ABI of the rasterizer kernel. All arrays are dense, row-major, little-endian; `library.py` mirrors this file.
//
// A scene holds canonical Gaussians and how joints and expressions move them; a frame is 55 joint matrices, an
// expression and a camera. One scene may be drawn by one thread at a time (the caller holds the lock).
#pragma once

#include <cstdint>

#define LHM_API extern "C" __attribute__((visibility("default")))

struct lhm_scene;

struct lhm_scene_desc {
  int32_t count;
  int32_t influences;           // k, joints per Gaussian: 0 (already posed) to 8
  const float* means;           // [count, 3] metres
  const float* covariances;     // [count, 6] xx xy xz yy yz zz
  const float* opacity;         // [count] in [0, 1]
  const float* rgb;             // [count, 3] in [0, 1]
  const uint8_t* skin_joints;   // [count, k]
  const float* skin_weights;    // [count, k]
  const uint8_t* constrained;   // [count] non-zero: moves without rotating
  int32_t moved_count;          // Gaussians that expressions move
  int32_t coefficients;         // e
  const int32_t* moved;         // [moved_count] ascending
  const float* directions;      // [moved_count, e, 3] metres per unit
  int32_t threads;              // including the caller's, >= 1
};

struct lhm_frame {
  const float* joint_matrices;  // [joints, 3, 4] zero pose to world; null draws the canonical Gaussians
  int32_t joints;
  const float* expression;      // [e]
  float R_camera_world[9];
  float t_camera_world[3];      // OpenCV axes
  float fx, fy, cx, cy;         // pixels; pixel centres at +0.5
  int32_t width, height;
  int32_t pixel_format;         // lhm::PixelFormat
  int32_t stop_rule;            // lhm::StopRule
  float background[3];
  float matte_rgb[3];           // kI420Alpha: the colour where nothing is seen
  void* pixels;
  float* depth;                 // [height, width] metres, alpha-weighted mean, 0 where nothing is seen; or null
  double* stage_ms;             // [4] warp+project, sort, bin, blend; or null
  int64_t* counts;              // [2] Gaussians in view, tile entries; or null
};

// What pixels are made of (the pairs of lhm_scene_weigh), and what they should look like.
struct lhm_colour_problem {
  int32_t count;                // Gaussians
  int64_t pixels;
  const int64_t* pixel_begin;   // [pixels + 1] into gaussian and weight
  const int32_t* gaussian;      // [pairs] below count
  const float* weight;          // [pairs]
  const float* wanted;          // [pixels, 3] premultiplied
  const float* trust;           // [pixels] share of each residual that counts
  const float* step;            // [count] move per unit of the summed residuals
  const float* limit;           // [count] furthest move of a channel
  int32_t rounds;
  const float* rgb;             // [count, 3] to start from
  float* solved;                // [count, 3] within limit of rgb, and in [0, 1]
};

enum lhm_status : int32_t {
  LHM_OK = 0,
  LHM_OUT_OF_MEMORY = 1,
  LHM_TOO_DENSE = 2,            // more than kMaxTileEntries (Gaussian, tile) pairs; counts[1] says how many
  LHM_TOO_SMALL = 3,            // capacity is less than the pairs there are; pixel_begin says how many
};

LHM_API lhm_scene* lhm_scene_create(const lhm_scene_desc* desc);  // null when out of memory
LHM_API void lhm_scene_destroy(lhm_scene* scene);
LHM_API int32_t lhm_scene_render(lhm_scene* scene, const lhm_frame* frame);
// The pairs of a pixel and a Gaussian whose weight there is above `least` (not negative): those of pixel p, row by row,
// are at pixel_begin[p] up to pixel_begin[p + 1], near to far. The sum of weight * rgb over all pairs of a pixel is its
// colour in PixelFormat::kFloat. pixel_begin [width * height + 1] is filled whatever the capacity of the other two; of
// the frame's outputs only counts is written.
LHM_API int32_t lhm_scene_weigh(lhm_scene* scene, const lhm_frame* frame, float least, int64_t capacity,
                                int64_t* pixel_begin, int32_t* gaussian, float* weight);
LHM_API int32_t lhm_solve_colours(const lhm_colour_problem* problem);
// eps2d, near, alpha_min, alpha_max, transmittance_stop, fov_margin, max tile entries, lanes
LHM_API void lhm_contract(double out[8]);
// The x86-64 level (2, 3 or 4) this CPU and its operating system support; 0 on other machines.
LHM_API int32_t lhm_cpu_level();
