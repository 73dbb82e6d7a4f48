// Queries and keys between projection and attention: each head normed, where the model has such norms, and turned.
// Channel i turns with i + d/2. A thread has the same few channels of both halves; `lanes` neighbouring threads, a
// power of two up to 32, share a head.

struct Heads {
    const float* norms[2];  // [d] for queries and for keys, or null
    const float* cosines;   // [P, d/2]
    const float* sines;     // [P, d/2]
    const int* positions;   // [T]
    i64 tokens;
    int heads, groups, head_dim, lanes;
    float epsilon;
    int vector;
};

constexpr int SIZE = Pack<element>::SIZE;

// SIZE values, of which `left` are there.
template <typename E>
__device__ __forceinline__ void load(const E* from, int left, int vector, float (&to)[SIZE]) {
#pragma unroll
    for (int j = 0; j < SIZE; j += 4) {
        float quad[4];
        load_quad(from + j, left - j, vector, quad);
#pragma unroll
        for (int k = 0; k < 4; ++k) to[j + k] = quad[k];
    }
}
__device__ __forceinline__ void store(element* target, int left, int vector, const float (&from)[SIZE]) {
    if (vector) {
        Pack<element> pack;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) pack.values[j] = to<element>(from[j]);
        *reinterpret_cast<Pack<element>*>(target) = pack;
    } else {
#pragma unroll
        for (int j = 0; j < SIZE; ++j)
            if (j < left) target[j] = to<element>(from[j]);
    }
}

// Sum over the threads of a head; all of a warp's threads call it.
__device__ __forceinline__ float head_sum(float x, int lanes) {
    for (int distance = lanes >> 1; distance > 0; distance >>= 1) x += __shfl_xor_sync(0xFFFFFFFFu, x, distance);
    return x;
}

// Where a thread works. Threads behind the last head do as if they had the last, and store nothing.
struct Place {
    i64 token;
    int head, channel, left;
    bool active;
};
__device__ __forceinline__ Place find(const Heads& heads, int count) {
    const i64 number = (i64(blockIdx.x) * blockDim.x + threadIdx.x) / heads.lanes, last = heads.tokens * count - 1;
    const i64 head = min(number, last);
    Place place;
    place.token = head / count;
    place.head = int(head % count);
    place.channel = int(threadIdx.x % u32(heads.lanes)) * SIZE;
    place.left = max(heads.head_dim / 2 - place.channel, 0);
    place.active = number <= last && place.left > 0;
    return place;
}

// qkv [T, ld], its first columns the queries' and keys'; q [T, heads, d], k [T, groups, d].
extern "C" __global__ void __launch_bounds__(256)
    turn_heads(const element* qkv, i64 qkv_ld, const __grid_constant__ Heads heads, element* q, element* k) {
    const int d = heads.head_dim, half = d / 2;
    const Place place = find(heads, heads.heads + heads.groups);
    const int left = place.left, vector = heads.vector && left > 0;
    const bool key = place.head >= heads.heads;
    const int channel = left > 0 ? place.channel : 0;
    const element* from = qkv + place.token * qkv_ld + place.head * d + channel;
    float first[SIZE], second[SIZE];
    load(from, left, vector, first);
    load(from + half, left, vector, second);
    const float* norm = heads.norms[key];
    if (norm) {
        float square = 0.0f;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) square += first[j] * first[j] + second[j] * second[j];
        const float reciprocal = rsqrtf(head_sum(square, heads.lanes) / d + heads.epsilon);
        float weights[SIZE];
        load(norm + channel, left, vector, weights);
#pragma unroll
        for (int j = 0; j < SIZE; ++j) first[j] *= reciprocal * weights[j];
        load(norm + half + channel, left, vector, weights);
#pragma unroll
        for (int j = 0; j < SIZE; ++j) second[j] *= reciprocal * weights[j];
    }
    if (!place.active) return;
    const i64 angle = i64(heads.positions[place.token]) * half + channel;
    float cosines[SIZE], sines[SIZE];
    load(heads.cosines + angle, left, vector, cosines);
    load(heads.sines + angle, left, vector, sines);
#pragma unroll
    for (int j = 0; j < SIZE; ++j) {
        const float x = first[j], y = second[j];
        first[j] = x * cosines[j] - y * sines[j];
        second[j] = y * cosines[j] + x * sines[j];
    }
    element* target = key ? k + (place.token * heads.groups + (place.head - heads.heads)) * d
                          : q + (place.token * heads.heads + place.head) * d;
    store(target + channel, left, vector, first);
    store(target + half + channel, left, vector, second);
}

// dq [T, heads, d], dk and dv [T, groups, d], qkv as above (read only for norms), d_qkv [T, (heads + 2 groups) d].
extern "C" __global__ void __launch_bounds__(256)
    turn_heads_backward(const element* dq, const element* dk, const element* dv, const element* qkv, i64 qkv_ld,
                        const __grid_constant__ Heads heads, element* d_qkv) {
    const int d = heads.head_dim, half = d / 2, turned = heads.heads + heads.groups, count = turned + heads.groups;
    const Place place = find(heads, count);
    const int left = place.left, vector = heads.vector && left > 0;
    const int kind = place.head < heads.heads ? 0 : place.head < turned ? 1 : 2;
    const int channel = left > 0 ? place.channel : 0;
    const element* from = kind == 0   ? dq + (place.token * heads.heads + place.head) * d
                          : kind == 1 ? dk + (place.token * heads.groups + (place.head - heads.heads)) * d
                                      : dv + (place.token * heads.groups + (place.head - turned)) * d;
    float first[SIZE], second[SIZE];
    load(from + channel, left, vector, first);
    load(from + half + channel, left, vector, second);
    if (kind < 2) {
        const i64 angle = i64(heads.positions[place.token]) * half + channel;
        float cosines[SIZE], sines[SIZE];
        load(heads.cosines + angle, left, vector, cosines);
        load(heads.sines + angle, left, vector, sines);
#pragma unroll
        for (int j = 0; j < SIZE; ++j) {
            const float x = first[j], y = second[j];
            first[j] = x * cosines[j] + y * sines[j];
            second[j] = y * cosines[j] - x * sines[j];
        }
    }
    if (heads.norms[0]) {
        // The heads of values take part in the sums of their warp, and use none.
        const float* norm = heads.norms[kind == 1];
        const element* before = qkv + place.token * qkv_ld + place.head * d + channel;
        float x[SIZE], y[SIZE], weights[SIZE];
        load(before, left, vector, x);
        load(before + half, left, vector, y);
        float square = 0.0f;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) square += x[j] * x[j] + y[j] * y[j];
        const float reciprocal = rsqrtf(head_sum(square, heads.lanes) / d + heads.epsilon);
        if (kind < 2) {
            load(norm + channel, left, vector, weights);
#pragma unroll
            for (int j = 0; j < SIZE; ++j) first[j] *= weights[j];
            load(norm + half + channel, left, vector, weights);
#pragma unroll
            for (int j = 0; j < SIZE; ++j) second[j] *= weights[j];
        }
        float product = 0.0f;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) product += first[j] * x[j] + second[j] * y[j];
        const float share = head_sum(product, heads.lanes) / d * reciprocal * reciprocal;
        if (kind < 2) {
#pragma unroll
            for (int j = 0; j < SIZE; ++j) {
                first[j] = reciprocal * (first[j] - x[j] * share);
                second[j] = reciprocal * (second[j] - y[j] * share);
            }
        }
    }
    if (!place.active) return;
    element* target = d_qkv + (place.token * count + place.head) * d + channel;
    store(target, left, vector, first);
    store(target + half, left, vector, second);
}
