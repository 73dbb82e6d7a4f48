// Cross-entropy over a vocabulary: statistics of rows of logits, and their gradient in place. A row may be part of a
// longer one, and a block of columns part of the vocabulary.

// The maximum and the sum of exponentials relative to it, of two parts of a row together.
__device__ __forceinline__ void merge(float& most, float& sum, float other_most, float other_sum) {
    const float both = fmaxf(most, other_most);
    sum = sum * __expf(most - both) + other_sum * __expf(other_most - both);
    most = both;
}

__device__ __forceinline__ void take(float& most, float& sum, float x) {
    if (x > most) {
        sum = sum * __expf(most - x) + 1.0f;
        most = x;
    } else {
        sum += __expf(x - most);
    }
}

// logits [N, ld]; target [N]; loss [N], lse [N]. One block of 512 threads a row.
extern "C" __global__ void cross_entropy(const element* logits, i64 ld, const int* target, float* loss, float* lse,
                                         int columns, int vector) {
    __shared__ float mosts[16], sums[16];
    const i64 row = blockIdx.x;
    logits += row * ld;
    // Finite, so that the difference of two parts without a value is no NaN. A NaN among the logits reaches the sum.
    float most = -3.0e38f, sum = 0.0f;
    if (vector) {
        const Pack<element>* packs = reinterpret_cast<const Pack<element>*>(logits);
        for (int i = threadIdx.x; i < columns / Pack<element>::SIZE; i += blockDim.x) {
            const Pack<element> pack = packs[i];
            float block_most = widen(pack.values[0]);
#pragma unroll
            for (int j = 1; j < Pack<element>::SIZE; ++j) block_most = fmaxf(block_most, widen(pack.values[j]));
            if (block_most > most) {
                sum *= __expf(most - block_most);
                most = block_most;
            }
#pragma unroll
            for (int j = 0; j < Pack<element>::SIZE; ++j) sum += __expf(widen(pack.values[j]) - most);
        }
    } else {
        for (int i = threadIdx.x; i < columns; i += blockDim.x) take(most, sum, widen(logits[i]));
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) {
        const float other_most = __shfl_xor_sync(0xFFFFFFFFu, most, distance);
        const float other_sum = __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
        merge(most, sum, other_most, other_sum);
    }
    if ((threadIdx.x & 31) == 0) {
        mosts[threadIdx.x >> 5] = most;
        sums[threadIdx.x >> 5] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < (blockDim.x >> 5); ++warp) merge(most, sum, mosts[warp], sums[warp]);
        const float normaliser = most + logf(sum);
        lse[row] = normaliser;
        loss[row] = normaliser - widen(logits[target[row]]);
    }
}

// logits [N, ld] become (softmax - one at the target) * scale; column 0 is number `first` of the vocabulary.
// Blocks of 256 threads: x over columns, y over rows.
extern "C" __global__ void cross_entropy_gradient(element* logits, i64 ld, const int* target, const float* lse,
                                                  float scale, int first, int columns, int vector) {
    const i64 row = blockIdx.y;
    logits += row * ld;
    const float normaliser = lse[row];
    const int at = target[row] - first;
    const int thread = blockIdx.x * blockDim.x + threadIdx.x;
    if (vector) {
        const int begin = thread * Pack<element>::SIZE;
        if (begin >= columns) return;
        Pack<element>* pack = reinterpret_cast<Pack<element>*>(logits + begin);
        Pack<element> values = *pack;
#pragma unroll
        for (int j = 0; j < Pack<element>::SIZE; ++j) {
            const float p = __expf(widen(values.values[j]) - normaliser);
            values.values[j] = to<element>((p - (begin + j == at ? 1.0f : 0.0f)) * scale);
        }
        *pack = values;
    } else if (thread < columns) {
        const float p = __expf(widen(logits[thread]) - normaliser);
        logits[thread] = to<element>((p - (thread == at ? 1.0f : 0.0f)) * scale);
    }
}
