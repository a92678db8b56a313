/**
 * An avatar as Spark draws it: a generator that makes each of its Gaussians on the graphics card, where it was read
 * from a texture, moved by expressions and turned by joints. The rule is that of our own renderer (docs/pipeline.md);
 * Spark's SplatSkinning would bend covariances with the blended matrix (A C A^T), and knows 4 joints.
 */
import { dyno, SplatGenerator } from '@sparkjsdev/spark'
import * as THREE from 'three'
import { listMoves, moveFaces, packTexels, TEXELS, type AvatarFile } from './avatar_file'
import { JOINTS, type Pose } from './pose_packet'
import { Skeleton } from './skeleton'

const COLUMNS = 256

const PUPPET = { type: 'Puppet' } as const

const DEFINE = `
struct Puppet {
  usampler2D gaussians;
  sampler2D joints;
  sampler2D moves;
  vec3 low;
  vec3 size;
  vec2 logScale;
  int moved;
};`

// Shepperd 1978: of the four rows, each 4 q_k q, the one of the largest component loses no digits
const POSE = `
vec4 puppetTurn(vec3 r0, vec3 r1, vec3 r2) {
  float ww = 1.0 + r0.x + r1.y + r2.z;
  float xx = 1.0 + r0.x - r1.y - r2.z;
  float yy = 1.0 - r0.x + r1.y - r2.z;
  float zz = 1.0 - r0.x - r1.y + r2.z;
  vec3 wv = vec3(r2.y - r1.z, r0.z - r2.x, r1.x - r0.y);
  float xy = r1.x + r0.y;
  float xz = r0.z + r2.x;
  float yz = r2.y + r1.z;
  float best = ww;
  vec4 q = vec4(wv, ww);
  if (xx > best) { best = xx; q = vec4(xx, xy, xz, wv.x); }
  if (yy > best) { best = yy; q = vec4(xy, yy, yz, wv.y); }
  if (zz > best) { q = vec4(xz, yz, zz, wv.z); }
  return normalize(q);
}

vec4 puppetRest(uint word) {
  uint leftOut = word >> 30u;
  vec3 o = (vec3(uvec3(word >> 20u, word >> 10u, word) & 1023u) / 1023.0 * 2.0 - 1.0) * 0.70710678;
  float m = sqrt(max(0.0, 1.0 - dot(o, o)));
  if (leftOut == 0u) return vec4(o.x, o.y, o.z, m);
  if (leftOut == 1u) return vec4(m, o.y, o.z, o.x);
  if (leftOut == 2u) return vec4(o.y, m, o.z, o.x);
  return vec4(o.y, o.z, m, o.x);
}

void posePuppet(
  usampler2D gaussians, sampler2D joints, sampler2D moves, vec3 low, vec3 size, vec2 logScale, int moved,
  int index, out vec3 center, out vec3 scales, out vec4 quaternion, out vec4 rgba
) {
  ivec2 at = ivec2(${TEXELS} * (index % ${COLUMNS}), index / ${COLUMNS});
  uvec4 shape = texelFetch(gaussians, at, 0);
  uvec4 look = texelFetch(gaussians, at + ivec2(1, 0), 0);
  uvec4 pull = texelFetch(gaussians, at + ivec2(2, 0), 0);
  vec3 point = low + size * vec3(uvec3(shape.x & 0xffffu, shape.x >> 16u, shape.y & 0xffffu));
  if (index < moved) {
    point += texelFetch(moves, ivec2(index % ${COLUMNS}, index / ${COLUMNS}), 0).xyz;
  }
  vec3 steps = vec3(uvec3(shape.y >> 16u, shape.y >> 24u, shape.z) & 255u);
  scales = exp(logScale.x + logScale.y * steps);
  rgba = vec4(uvec4(look.x, look.x >> 8u, look.x >> 16u, look.x >> 24u) & 255u) / 255.0;
  vec4 r0 = vec4(0.0);
  vec4 r1 = vec4(0.0);
  vec4 r2 = vec4(0.0);
  for (int k = 0; k < 8; k++) {
    uint shift = 8u * uint(k & 3);
    float weight = float(((k < 4 ? pull.x : pull.y) >> shift) & 255u) / 255.0;
    if (weight == 0.0) break;
    int joint = int(((k < 4 ? look.y : look.z) >> shift) & 255u);
    r0 += weight * texelFetch(joints, ivec2(0, joint), 0);
    r1 += weight * texelFetch(joints, ivec2(1, joint), 0);
    r2 += weight * texelFetch(joints, ivec2(2, joint), 0);
  }
  center = vec3(dot(r0.xyz, point) + r0.w, dot(r1.xyz, point) + r1.w, dot(r2.xyz, point) + r2.w);
  quaternion = puppetRest(shape.w);
  if (((shape.z >> 8u) & 1u) == 0u) {
    quaternion = quatQuat(puppetTurn(r0.xyz, r1.xyz, r2.xyz), quaternion);
  }
}`

export class Puppet {
  readonly object: SplatGenerator
  #faces: ReturnType<typeof listMoves>
  #skeleton: Skeleton
  #gaussians: THREE.DataTexture
  #joints: THREE.DataTexture
  #moves: THREE.DataTexture
  #matrices = new Float32Array(12 * JOINTS)
  #displacements: Float32Array<ArrayBuffer>

  constructor(file: AvatarFile) {
    this.#faces = listMoves(file)
    this.#skeleton = new Skeleton(file.parents, file.rest)
    const rows = Math.max(1, Math.ceil(file.gaussians / COLUMNS))
    const faceRows = Math.max(1, Math.ceil(file.moved / COLUMNS))
    this.#displacements = new Float32Array(4 * COLUMNS * faceRows)
    this.#gaussians = new THREE.DataTexture(
      packTexels(file, rows * COLUMNS),
      TEXELS * COLUMNS,
      rows,
      THREE.RGBAIntegerFormat,
      THREE.UnsignedIntType,
    )
    this.#gaussians.internalFormat = 'RGBA32UI'
    this.#gaussians.needsUpdate = true
    this.#joints = floats(this.#matrices, 3, JOINTS)
    this.#moves = floats(this.#displacements, COLUMNS, faceRows)
    this.object = new SplatGenerator({ numSplats: file.gaussians, generator: this.#generator(file) })
  }

  pose(pose: Pose): void {
    this.#skeleton.matrices(pose, this.#matrices)
    moveFaces(this.#faces, pose.expression, this.#displacements)
    this.#joints.needsUpdate = true
    this.#moves.needsUpdate = true
    this.object.updateVersion()
  }

  dispose(): void {
    for (const texture of [this.#gaussians, this.#joints, this.#moves]) texture.dispose()
  }

  #generator({ low, step, scaleLow, scaleStep, moved }: AvatarFile) {
    const puppet = new dyno.DynoUniform({
      key: 'puppet',
      type: PUPPET,
      globals: () => [DEFINE],
      value: {
        gaussians: this.#gaussians,
        joints: this.#joints,
        moves: this.#moves,
        low: new THREE.Vector3(...low),
        size: new THREE.Vector3(...step),
        logScale: new THREE.Vector2(scaleLow, scaleStep),
        moved,
      },
    })
    return dyno.dyno({
      inTypes: { index: 'int', puppet: PUPPET },
      outTypes: { gsplat: dyno.Gsplat },
      inputs: { puppet: puppet.dynoOut() },
      globals: () => [dyno.defineGsplat, DEFINE, POSE],
      statements: ({ inputs, outputs }) => [
        `${outputs.gsplat}.flags = GSPLAT_FLAG_ACTIVE;`,
        `${outputs.gsplat}.index = ${inputs.index};`,
        `posePuppet(${['gaussians', 'joints', 'moves', 'low', 'size', 'logScale', 'moved'].map((part) => `${inputs.puppet}.${part}`).join(', ')}, ${inputs.index},`,
        `  ${outputs.gsplat}.center, ${outputs.gsplat}.scales, ${outputs.gsplat}.quaternion, ${outputs.gsplat}.rgba);`,
      ],
    })
  }
}

function floats(data: Float32Array<ArrayBuffer>, width: number, height: number): THREE.DataTexture {
  const texture = new THREE.DataTexture(data, width, height, THREE.RGBAFormat, THREE.FloatType)
  texture.internalFormat = 'RGBA32F'
  texture.needsUpdate = true
  return texture
}
