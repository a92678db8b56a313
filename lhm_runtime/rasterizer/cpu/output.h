// Stage 5, tile by tile while it is in the cache: blended floats to the caller's pixel format.
#pragma once

#include "blend.h"

namespace lhm {

// Y, Cb, Cr of displayed RGB in [0, 1] by ITU-R BT.709, as 8-bit code values plus one half.
struct Yuv {
  float y[3], u[3], v[3], y0, c0;
  explicit Yuv(bool full) {
    constexpr float kr = .2126f, kb = .0722f, kg = 1.f - kr - kb;
    const float ys = full ? 255.f : 219.f, cs = full ? 255.f : 224.f;
    const float cb = cs / (2.f * (1.f - kb)), cr = cs / (2.f * (1.f - kr));
    y[0] = kr * ys, y[1] = kg * ys, y[2] = kb * ys;
    u[0] = -kr * cb, u[1] = -kg * cb, u[2] = (1.f - kb) * cb;
    v[0] = (1.f - kr) * cr, v[1] = -kg * cr, v[2] = -kb * cr;
    y0 = (full ? 0.f : 16.f) + .5f, c0 = 128.5f;
  }
};

LHM_INLINE float clamp01(float x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }
LHM_INLINE uint8_t code(float x) { return (uint8_t)(int)(x > 0.f ? (x < 255.f ? x : 255.f) : 0.f); } // x has its half

// One tile as planes, row by row.
struct TilePlanes {
  alignas(64) float r[kTile][kTile], g[kTile][kTile], b[kTile][kTile], alpha[kTile][kTile], depth[kTile][kTile];
};

static void gather(const PixelBlock* blocks, bool with_depth, TilePlanes& t) {
  for (int k = 0; k < kBlocks; k++) {
    const PixelBlock& s = blocks[k];
    const int x = k % 4 * kSide, y = k / 4 * kSide;
    for (int row = 0; row < kSide; row++) {
      memcpy(&t.r[y + row][x], s.r + row * kSide, sizeof(float) * kSide);
      memcpy(&t.g[y + row][x], s.g + row * kSide, sizeof(float) * kSide);
      memcpy(&t.b[y + row][x], s.b + row * kSide, sizeof(float) * kSide);
      memcpy(&t.alpha[y + row][x], s.final_transmittance + row * kSide, sizeof(float) * kSide);
      if (with_depth) memcpy(&t.depth[y + row][x], s.depth + row * kSide, sizeof(float) * kSide);
    }
  }
  float* a = &t.alpha[0][0];
  for (int i = 0; i < kTile * kTile; i++) a[i] = 1.f - a[i];
}

// Lays the colour over a background.
static void composite(TilePlanes& t, const float* background) {
  float *r = &t.r[0][0], *g = &t.g[0][0], *b = &t.b[0][0], *a = &t.alpha[0][0];
  for (int i = 0; i < kTile * kTile; i++) {
    const float through = 1.f - a[i];
    r[i] += through * background[0], g[i] += through * background[1], b[i] += through * background[2];
  }
}

// Straight colour that fades to `matte` where alpha goes to nothing, so that a video codec meets no edge there and a
// compositor no fringe; times alpha it is off by at most kFade.
static void straighten_over_matte(TilePlanes& t, const float* matte) {
  constexpr float kFade = 1.f / 255.f;
  float *r = &t.r[0][0], *g = &t.g[0][0], *b = &t.b[0][0], *a = &t.alpha[0][0];
  for (int i = 0; i < kTile * kTile; i++) {
    const float inv = 1.f / (a[i] + kFade);
    r[i] = (r[i] + kFade * matte[0]) * inv, g[i] = (g[i] + kFade * matte[1]) * inv, b[i] = (b[i] + kFade * matte[2]) * inv;
  }
}

static void write_rgba(TilePlanes& t, bool straight, int X0, int Y0, int columns, int rows, int width, uint8_t* out) {
  for (int y = 0; y < rows; y++) {
    alignas(64) uint32_t line[kTile];
    for (int x = 0; x < kTile; x++) {
      const float a = t.alpha[y][x], scale = 255.f * (straight ? 1.f / (a > 1e-6f ? a : 1e-6f) : 1.f);
      const uint32_t r = code(t.r[y][x] * scale + .5f), g = code(t.g[y][x] * scale + .5f), b = code(t.b[y][x] * scale + .5f);
      line[x] = r | g << 8 | b << 16 | (uint32_t)code(a * 255.f + .5f) << 24;
    }
    memcpy(out + ((size_t)(Y0 + y) * width + X0) * 4, line, (size_t)columns * 4);
  }
}

static void write_rgb(const TilePlanes& t, int X0, int Y0, int columns, int rows, int width, uint8_t* out) {
  for (int y = 0; y < rows; y++) {
    uint8_t* line = out + ((size_t)(Y0 + y) * width + X0) * 3;
    for (int x = 0; x < columns; x++) {
      line[3 * x] = code(t.r[y][x] * 255.f + .5f);
      line[3 * x + 1] = code(t.g[y][x] * 255.f + .5f);
      line[3 * x + 2] = code(t.b[y][x] * 255.f + .5f);
    }
  }
}

static void write_float(const TilePlanes& t, int X0, int Y0, int columns, int rows, int width, float* out) {
  for (int y = 0; y < rows; y++) {
    float* line = out + ((size_t)(Y0 + y) * width + X0) * 4;
    for (int x = 0; x < columns; x++)
      line[4 * x] = t.r[y][x], line[4 * x + 1] = t.g[y][x], line[4 * x + 2] = t.b[y][x], line[4 * x + 3] = t.alpha[y][x];
  }
}

// `picture_height` is the height of the whole I420 picture: the frame's, or twice it with alpha stacked below.
static void write_i420(const TilePlanes& t, const Yuv& m, int X0, int Y0, int columns, int rows, int width,
                       int picture_height, uint8_t* out) {
  uint8_t* luma = out + (size_t)Y0 * width + X0;
  for (int y = 0; y < rows; y++) {
    alignas(64) uint8_t line[kTile];
    for (int x = 0; x < kTile; x++)
      line[x] = code(m.y[0] * clamp01(t.r[y][x]) + m.y[1] * clamp01(t.g[y][x]) + m.y[2] * clamp01(t.b[y][x]) + m.y0);
    memcpy(luma + (size_t)y * width, line, columns);
  }
  const size_t chroma_width = width / 2, chroma_size = chroma_width * (picture_height / 2);
  uint8_t* cb = out + (size_t)width * picture_height + (size_t)(Y0 / 2) * chroma_width + X0 / 2;
  uint8_t* cr = cb + chroma_size;
  for (int y = 0; y < rows / 2; y++) {
    alignas(64) float mean[3][kTile / 2];
    const float(*planes[3])[kTile] = {t.r, t.g, t.b};
    for (int k = 0; k < 3; k++)
      for (int x = 0; x < kTile / 2; x++) {
        const float *a = planes[k][2 * y] + 2 * x, *b = planes[k][2 * y + 1] + 2 * x;
        mean[k][x] = .25f * (clamp01(a[0]) + clamp01(a[1]) + clamp01(b[0]) + clamp01(b[1]));
      }
    alignas(64) uint8_t line[2][kTile / 2];
    for (int x = 0; x < kTile / 2; x++) {
      line[0][x] = code(m.u[0] * mean[0][x] + m.u[1] * mean[1][x] + m.u[2] * mean[2][x] + m.c0);
      line[1][x] = code(m.v[0] * mean[0][x] + m.v[1] * mean[1][x] + m.v[2] * mean[2][x] + m.c0);
    }
    memcpy(cb + y * chroma_width, line[0], columns / 2);
    memcpy(cr + y * chroma_width, line[1], columns / 2);
  }
}

// Alpha as the luma of the lower picture (limited range); its chroma is neutral.
static void write_alpha_below(const TilePlanes& t, int X0, int Y0, int columns, int rows, int width, int height,
                              uint8_t* out) {
  for (int y = 0; y < rows; y++) {
    alignas(64) uint8_t line[kTile];
    for (int x = 0; x < kTile; x++) line[x] = code(219.f * t.alpha[y][x] + 16.5f);
    memcpy(out + (size_t)(height + Y0 + y) * width + X0, line, columns);
  }
  const size_t chroma_width = width / 2, chroma_size = chroma_width * height;
  uint8_t* cb = out + (size_t)width * 2 * height + (size_t)(height + Y0) / 2 * chroma_width + X0 / 2;
  for (int y = 0; y < rows / 2; y++) {
    memset(cb + y * chroma_width, 128, columns / 2);
    memset(cb + chroma_size + y * chroma_width, 128, columns / 2);
  }
}

static void write_depth(const TilePlanes& t, int X0, int Y0, int columns, int rows, int width, float* out) {
  for (int y = 0; y < rows; y++)
    for (int x = 0; x < columns; x++)
      out[(size_t)(Y0 + y) * width + X0 + x] = t.alpha[y][x] > 0.f ? t.depth[y][x] / t.alpha[y][x] : 0.f;
}

static void fill_rows(uint8_t* first, size_t stride, int bytes, int rows, int value) {
  for (int y = 0; y < rows; y++) memset(first + y * stride, value, bytes);
}

// A tile no Gaussian reaches: what write_tile makes of nothing, without the arithmetic.
static void write_empty_tile(const lhm_frame& f, int X0, int Y0) {
  const int columns = std::min(kTile, f.width - X0), rows = std::min(kTile, f.height - Y0);
  const size_t w = f.width, h = f.height, at = Y0 * w + X0, chroma_at = Y0 / 2 * (w / 2) + X0 / 2;
  auto* out = static_cast<uint8_t*>(f.pixels);
  if (f.depth) fill_rows(reinterpret_cast<uint8_t*>(f.depth + at), w * 4, columns * 4, rows, 0);
  const auto planes = [&](const Yuv& m, const float* rgb, size_t picture_height) {
    float value[3] = {m.y0, m.c0, m.c0};
    for (int k = 0; k < 3; k++) {
      const float c = clamp01(rgb[k]);
      value[0] += m.y[k] * c, value[1] += m.u[k] * c, value[2] += m.v[k] * c;
    }
    uint8_t *cb = out + w * picture_height, *cr = cb + w / 2 * (picture_height / 2);
    fill_rows(out + at, w, columns, rows, code(value[0]));
    fill_rows(cb + chroma_at, w / 2, columns / 2, rows / 2, code(value[1]));
    fill_rows(cr + chroma_at, w / 2, columns / 2, rows / 2, code(value[2]));
  };
  switch (static_cast<PixelFormat>(f.pixel_format)) {
    case PixelFormat::kRgba:
    case PixelFormat::kRgbaPremultiplied:
      fill_rows(out + at * 4, w * 4, columns * 4, rows, 0);
      break;
    case PixelFormat::kFloat:
      fill_rows(out + at * 16, w * 16, columns * 16, rows, 0);
      break;
    case PixelFormat::kRgb:
      for (int y = 0; y < rows; y++)
        for (int x = 0; x < columns; x++)
          for (int k = 0; k < 3; k++) out[(at + y * w + x) * 3 + k] = code(f.background[k] * 255.f + .5f);
      break;
    case PixelFormat::kI420:
    case PixelFormat::kI420Full:
      planes(Yuv(f.pixel_format == (int)PixelFormat::kI420Full), f.background, h);
      break;
    case PixelFormat::kI420Alpha:
      planes(Yuv(false), f.matte_rgb, 2 * h);
      fill_rows(out + h * w + at, w, columns, rows, 16);
      for (size_t plane : {2 * h * w, 2 * h * w + w / 2 * h})
        fill_rows(out + plane + (h / 2) * (w / 2) + chroma_at, w / 2, columns / 2, rows / 2, 128);
      break;
  }
}

static void write_tile(const lhm_frame& f, TilePlanes& t, int X0, int Y0) {
  const int columns = std::min(kTile, f.width - X0), rows = std::min(kTile, f.height - Y0), w = f.width;
  auto* bytes = static_cast<uint8_t*>(f.pixels);
  if (f.depth) write_depth(t, X0, Y0, columns, rows, w, f.depth);
  switch (static_cast<PixelFormat>(f.pixel_format)) {
    case PixelFormat::kRgba:
    case PixelFormat::kRgbaPremultiplied:
      write_rgba(t, f.pixel_format == (int)PixelFormat::kRgba, X0, Y0, columns, rows, w, bytes);
      break;
    case PixelFormat::kRgb:
      composite(t, f.background);
      write_rgb(t, X0, Y0, columns, rows, w, bytes);
      break;
    case PixelFormat::kI420:
    case PixelFormat::kI420Full:
      composite(t, f.background);
      write_i420(t, Yuv(f.pixel_format == (int)PixelFormat::kI420Full), X0, Y0, columns, rows, w, f.height, bytes);
      break;
    case PixelFormat::kI420Alpha:
      write_alpha_below(t, X0, Y0, columns, rows, w, f.height, bytes);
      straighten_over_matte(t, f.matte_rgb);
      write_i420(t, Yuv(false), X0, Y0, columns, rows, w, 2 * f.height, bytes);
      break;
    case PixelFormat::kFloat:
      write_float(t, X0, Y0, columns, rows, w, static_cast<float*>(f.pixels));
      break;
  }
}

} // namespace lhm
