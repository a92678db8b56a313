// Stage 1: linear blend skinning of means and orientations, and their projection to the picture (EWA, Zwicker 2001,
// with 3DGS's constants).
#pragma once

#include "scene.h"
#include "simd.h"

namespace lhm {

constexpr int kTile = 16;

// One projected Gaussian: alpha = 2^(log2_opacity - (p dx + q dy)^2 - (r dy)^2), the Cholesky factor of its inverse
// covariance (that keeps thin ones accurate). One cache line.
struct alignas(64) Splat {
  float u, v, p, q, r, log2_opacity, red, green, blue;
  float radius2, radius_x, radius_y; // reach of the visible ellipse: as a circle, as a box
  float depth;
  float pad[3];
};
static_assert(sizeof(Splat) == 64);

struct TileRect { // inclusive
  uint16_t x0, y0, x1, y1;
};

struct Posed { // one block in world space
  alignas(64) float matrix[12][kBlock];
  alignas(64) float mean[3][kBlock];
  alignas(64) float cov[6][kBlock];
};

typedef float v16f __attribute__((vector_size(64)));

// Blended joint matrices of a block: one row of 16 floats a Gaussian at first, then transposed. The number of
// joints is a constant of each instance, or the row would live in memory.
template <int kJoints>
LHM_INLINE void blend_matrices(const Gaussians& g, int block, const float* joints16, Posed& out) {
  const uint8_t* joint = &g.skin_joints[(size_t)block * kBlock * g.influences];
  const float* weight = &g.skin_weights[(size_t)block * kBlock * g.influences];
  const v16f* J = reinterpret_cast<const v16f*>(joints16);
  for (int i = 0; i < kBlock; i++, joint += g.influences, weight += g.influences) {
    v16f M = J[joint[0]] * weight[0];
#pragma GCC unroll 8
    for (int k = 1; k < kJoints; k++) M += J[joint[k]] * weight[k];
#pragma GCC unroll 12
    for (int e = 0; e < 12; e++) out.matrix[e][i] = M[e];
  }
}

LHM_INLINE void warp_block(const Gaussians& g, int block, const float* joints16, const float* expression, Posed& out) {
  const size_t first = (size_t)block * kBlock;
  alignas(64) float x[kBlock], y[kBlock], z[kBlock];
  memcpy(x, &g.mean[0][first], sizeof x);
  memcpy(y, &g.mean[1][first], sizeof y);
  memcpy(z, &g.mean[2][first], sizeof z);
  for (int e = g.expression_begin[block]; e < g.expression_begin[block + 1]; e++) {
    const ExpressionBlock& move = g.expression_blocks[e];
    const float amount = expression[move.coefficient];
    if (amount == 0.f) continue;
    for (int i = 0; i < kBlock; i++) {
      x[i] += amount * move.xyz[0][i];
      y[i] += amount * move.xyz[1][i];
      z[i] += amount * move.xyz[2][i];
    }
  }
  const float* c[6];
  for (int k = 0; k < 6; k++) c[k] = &g.cov[k][first];
  if (!joints16) {
    memcpy(out.mean[0], x, sizeof x);
    memcpy(out.mean[1], y, sizeof y);
    memcpy(out.mean[2], z, sizeof z);
    for (int k = 0; k < 6; k++) memcpy(out.cov[k], c[k], sizeof x);
    return;
  }
  switch (g.block_influences[block]) {
    case 1: blend_matrices<1>(g, block, joints16, out); break;
    case 2: blend_matrices<2>(g, block, joints16, out); break;
    case 4: blend_matrices<4>(g, block, joints16, out); break;
    default: blend_matrices<8>(g, block, joints16, out); break;
  }
  auto& M = out.matrix;
#pragma GCC ivdep
  for (int i = 0; i < kBlock; i++)
    for (int k = 0; k < 3; k++)
      out.mean[k][i] = M[4 * k][i] * x[i] + M[4 * k + 1][i] * y[i] + M[4 * k + 2][i] * z[i] + M[4 * k + 3][i];
  const float* turns = &g.turns[first];
#pragma GCC ivdep
  for (int i = 0; i < kBlock; i++) { // R C R^T, R the unit quaternion read off the blended matrix (LHM's rule)
    const float a00 = M[0][i], a01 = M[1][i], a02 = M[2][i], a10 = M[4][i], a11 = M[5][i], a12 = M[6][i],
                a20 = M[8][i], a21 = M[9][i], a22 = M[10][i];
    // Shepperd 1978: row k of these is 4 q_k q; the row of the largest loses no digits
    const float ww = 1 + a00 + a11 + a22, xx = 1 + a00 - a11 - a22, yy = 1 - a00 + a11 - a22, zz = 1 - a00 - a11 + a22;
    const float wx = a21 - a12, wy = a02 - a20, wz = a10 - a01, xy = a10 + a01, xz = a02 + a20, yz = a12 + a21;
    float best = ww, qw = ww, qx = wx, qy = wy, qz = wz;
    const bool by_x = xx > best;
    best = by_x ? xx : best, qw = by_x ? wx : qw, qx = by_x ? xx : qx, qy = by_x ? xy : qy, qz = by_x ? xz : qz;
    const bool by_y = yy > best;
    best = by_y ? yy : best, qw = by_y ? wy : qw, qx = by_y ? xy : qx, qy = by_y ? yy : qy, qz = by_y ? yz : qz;
    const bool by_z = zz > best;
    qw = by_z ? wz : qw, qx = by_z ? xz : qx, qy = by_z ? yz : qy, qz = by_z ? zz : qz;
    // 2 / |q|^2, or 0 for the constrained, whose R is then the identity
    const float s = turns[i] * 2.f / (qw * qw + qx * qx + qy * qy + qz * qz);
    const float sx = s * qx, sy = s * qy, sz = s * qz;
    const float r00 = 1 - sy * qy - sz * qz, r01 = sx * qy - sz * qw, r02 = sx * qz + sy * qw;
    const float r10 = sx * qy + sz * qw, r11 = 1 - sx * qx - sz * qz, r12 = sy * qz - sx * qw;
    const float r20 = sx * qz - sy * qw, r21 = sy * qz + sx * qw, r22 = 1 - sx * qx - sy * qy;
    const float c0 = c[0][i], c1 = c[1][i], c2 = c[2][i], c3 = c[3][i], c4 = c[4][i], c5 = c[5][i];
    const float t00 = r00 * c0 + r01 * c1 + r02 * c2, t01 = r00 * c1 + r01 * c3 + r02 * c4,
                t02 = r00 * c2 + r01 * c4 + r02 * c5;
    const float t10 = r10 * c0 + r11 * c1 + r12 * c2, t11 = r10 * c1 + r11 * c3 + r12 * c4,
                t12 = r10 * c2 + r11 * c4 + r12 * c5;
    const float t20 = r20 * c0 + r21 * c1 + r22 * c2, t21 = r20 * c1 + r21 * c3 + r22 * c4,
                t22 = r20 * c2 + r21 * c4 + r22 * c5;
    out.cov[0][i] = t00 * r00 + t01 * r01 + t02 * r02;
    out.cov[1][i] = t00 * r10 + t01 * r11 + t02 * r12;
    out.cov[2][i] = t00 * r20 + t01 * r21 + t02 * r22;
    out.cov[3][i] = t10 * r10 + t11 * r11 + t12 * r12;
    out.cov[4][i] = t10 * r20 + t11 * r21 + t12 * r22;
    out.cov[5][i] = t20 * r20 + t21 * r21 + t22 * r22;
  }
}

struct Projected { // one block in the picture
  alignas(64) float u[kBlock], v[kBlock], p[kBlock], q[kBlock], r[kBlock];
  alignas(64) float radius2[kBlock], radius_x[kBlock], radius_y[kBlock];
  alignas(64) float depth[kBlock]; // negative: not in view
  alignas(64) int x0[kBlock], y0[kBlock], x1[kBlock], y1[kBlock]; // pixels, inclusive
};

LHM_INLINE void project_block(const Gaussians& g, int block, const lhm_frame& f, const Posed& in, Projected& out) {
  const float *R = f.R_camera_world, *t = f.t_camera_world;
  const float r0 = R[0], r1 = R[1], r2 = R[2], r3 = R[3], r4 = R[4], r5 = R[5], r6 = R[6], r7 = R[7], r8 = R[8];
  const float t0 = t[0], t1 = t[1], t2 = t[2], fx = f.fx, fy = f.fy, cx = f.cx, cy = f.cy;
  const float margin_x = kFovMargin * .5f * f.width / fx, margin_y = kFovMargin * .5f * f.height / fy;
  const float limit_x0 = -(cx / fx + margin_x), limit_x1 = (f.width - cx) / fx + margin_x;
  const float limit_y0 = -(cy / fy + margin_y), limit_y1 = (f.height - cy) / fy + margin_y;
  const float right = f.width - 1, bottom = f.height - 1;
  const float* extent = &g.extent[(size_t)block * kBlock];
  constexpr float kRoot = .849321800f; // sqrt(log2(e) / 2): from exp(-x/2) to 2^(-x)
#pragma GCC ivdep
  for (int i = 0; i < kBlock; i++) {
    const float X = in.mean[0][i], Y = in.mean[1][i], Z = in.mean[2][i];
    const float x = r0 * X + r1 * Y + r2 * Z + t0, y = r3 * X + r4 * Y + r5 * Z + t1,
                z = r6 * X + r7 * Y + r8 * Z + t2;
    const float inv_z = 1.f / z, xr = x * inv_z, yr = y * inv_z;
    float tx = xr > limit_x1 ? limit_x1 : xr, ty = yr > limit_y1 ? limit_y1 : yr;
    tx = tx < limit_x0 ? limit_x0 : tx, ty = ty < limit_y0 ? limit_y0 : ty;
    const float sx = fx * inv_z, sy = fy * inv_z;
    const float p0 = sx * (r0 - tx * r6), p1 = sx * (r1 - tx * r7), p2 = sx * (r2 - tx * r8);
    const float q0 = sy * (r3 - ty * r6), q1 = sy * (r4 - ty * r7), q2 = sy * (r5 - ty * r8);
    const float xx = in.cov[0][i], xy = in.cov[1][i], xz = in.cov[2][i], yy = in.cov[3][i], yz = in.cov[4][i],
                zz = in.cov[5][i];
    const float d0 = xx * p0 + xy * p1 + xz * p2, d1 = xy * p0 + yy * p1 + yz * p2, d2 = xz * p0 + yz * p1 + zz * p2;
    const float e0 = xx * q0 + xy * q1 + xz * q2, e1 = xy * q0 + yy * q1 + yz * q2, e2 = xz * q0 + yz * q1 + zz * q2;
    const float A = p0 * d0 + p1 * d1 + p2 * d2 + kEps2d, B = q0 * d0 + q1 * d1 + q2 * d2,
                C = q0 * e0 + q1 * e1 + q2 * e2 + kEps2d;
    const float det = A * C - B * B, root_c = __builtin_sqrtf(C);
    const float p = kRoot * root_c / __builtin_sqrtf(det);
    const float u = fx * xr + cx - .5f, v = fy * yr + cy - .5f; // pixel index of the centre
    out.u[i] = u;
    out.v[i] = v;
    out.p[i] = p;
    out.q[i] = -p * B / C;
    out.r[i] = kRoot / root_c;
    const float half = .5f * (A - C), largest = .5f * (A + C) + __builtin_sqrtf(half * half + B * B);
    const float rx = extent[i] * __builtin_sqrtf(A), ry = extent[i] * root_c;
    out.radius_x[i] = rx;
    out.radius_y[i] = ry;
    out.radius2[i] = extent[i] * extent[i] * largest;
    // clamped on both sides so that a conversion to int is always in range, NaN included
    float x0 = __builtin_ceilf(u - rx), x1 = __builtin_floorf(u + rx), y0 = __builtin_ceilf(v - ry),
          y1 = __builtin_floorf(v + ry);
    x0 = x0 > 0.f ? x0 : 0.f, y0 = y0 > 0.f ? y0 : 0.f;
    x1 = x1 < right ? x1 : right, y1 = y1 < bottom ? y1 : bottom;
    const int finite = (u - u == 0.f) & (v - v == 0.f) & (z < 1e30f) & (det < 1e30f);
    const int seen = finite & (z > kNear) & (det > 0.f) & (extent[i] > 0.f) & (x0 <= x1) & (y0 <= y1);
    out.depth[i] = seen ? z : -1.f;
    out.x0[i] = seen ? (int)(x0 < right ? x0 : right) : 0;
    out.y0[i] = seen ? (int)(y0 < bottom ? y0 : bottom) : 0;
    out.x1[i] = seen ? (int)(x1 > 0.f ? x1 : 0.f) : 0;
    out.y1[i] = seen ? (int)(y1 > 0.f ? y1 : 0.f) : 0;
  }
}

} // namespace lhm
