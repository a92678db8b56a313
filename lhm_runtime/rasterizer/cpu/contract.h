// The numbers every backend obeys; the same as ../contract.py, which says why (a test compares the two).
#pragma once

namespace lhm {

constexpr float kEps2d = 0.3f;              // px^2 added to the projected covariance
constexpr float kNear = 0.01f;              // metres
constexpr float kAlphaMin = 1.f / 255.f;    // fainter contributions are dropped
constexpr float kAlphaMax = 0.999f;         // no Gaussian is fully opaque
constexpr float kTransmittanceStop = 1e-4f; // darker than this, nothing more is seen
constexpr float kFovMargin = 0.3f;          // the Jacobian is taken no further outside the picture than this share of it

enum class StopRule : int { kInclusive = 0, kGsplat = 1 };

enum class PixelFormat : int {
  kRgba = 0,              // [h, w, 4] straight alpha
  kRgbaPremultiplied = 1, // [h, w, 4]
  kRgb = 2,               // [h, w, 3] over the background
  kI420 = 3,              // [h * 3/2, w] BT.709 limited range, over the background
  kI420Full = 4,          // the same, full range
  kI420Alpha = 5,         // [h * 3, w]: a picture twice as high, straight colour above, alpha as luma below
  kFloat = 6,             // [h, w, 4] float32, premultiplied colour and alpha
};

} // namespace lhm
