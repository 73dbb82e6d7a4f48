// RMS norm of rows, with an addition to the residual stream in front of it, and the way back.

// h [T, D]; add [T, D] or null; sum [T, D], only with add; x [T, ld] of which D columns are written; rstd [T]. One block
// of 256 threads a row. A row of up to 4096 channels stays in registers between the two passes.
extern "C" __global__ void __launch_bounds__(256)
    rms_norm(const float* h, const element* add, int add_ld, const float* weight, float epsilon, float* sum, element* x,
             int x_ld, float* rstd, int width, int vector) {
    __shared__ float scratch[33];
    constexpr int CHUNKS = 4;
    const i64 row = blockIdx.x;
    h += row * width;
    x += row * x_ld;
    if (add) {
        add += row * add_ld;
        sum += row * width;
    }
    float values[CHUNKS][4];
    float square = 0.0f;
    const auto load = [&](int i, float (&value)[4]) {
        load_quad(h + i, width - i, vector, value);
        if (add) {
            float other[4];
            load_quad(add + i, width - i, vector, other);
#pragma unroll
            for (int j = 0; j < 4; ++j) value[j] += other[j];
            store_quad(sum + i, width - i, vector, value);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) square += value[j] * value[j];
    };
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
        const int i = 4 * (threadIdx.x + chunk * 256);
        if (i < width) load(i, values[chunk]);
    }
    for (int i = 4 * (threadIdx.x + CHUNKS * 256); i < width; i += 4 * 256) {
        float value[4];
        load(i, value);
    }
    const float reciprocal = rsqrtf(block_sum(square, scratch) / width + epsilon);
    if (threadIdx.x == 0) rstd[row] = reciprocal;
    const auto store = [&](int i, float (&value)[4]) {
        float weights[4];
        load_quad(weight + i, width - i, vector, weights);
#pragma unroll
        for (int j = 0; j < 4; ++j) value[j] = value[j] * reciprocal * weights[j];
        store_quad(x + i, width - i, vector, value);
    };
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
        const int i = 4 * (threadIdx.x + chunk * 256);
        if (i < width) store(i, values[chunk]);
    }
    const float* in = add ? sum : h;
    for (int i = 4 * (threadIdx.x + CHUNKS * 256); i < width; i += 4 * 256) {
        // A thread reads again what it wrote itself.
        float value[4];
        load_quad(in + i, width - i, vector, value);
        store(i, value);
    }
}

// dx [T, ld], h, residual and dh [T, D], rstd [T], rounded [T, D]. One block for LORA_ROWS rows, four channels a
// thread; where that is not the whole row, the finished dx times the weight waits in dh. Dynamic shared memory:
// LORA_ROWS floats for each column behind `width`.
extern "C" __global__ void __launch_bounds__(1024)
    rms_norm_backward(const element* dx, int dx_ld, const __grid_constant__ LoraGroup group, const float* h,
                      const float* rstd, const float* weight, const float* residual, float* dh, element* rounded,
                      i64 tokens, int width, int vector) {
    extern __shared__ __align__(16) float inner[];
    __shared__ float scratch[LORA_ROWS][32];
    const i64 first = i64(blockIdx.x) * LORA_ROWS;
    const int rows = int(min(i64(LORA_ROWS), tokens - first));
    const bool whole = 4 * blockDim.x >= u32(width);
    load_inner(dx, dx_ld, width, first, rows, inner);
    __syncthreads();
    float values[LORA_ROWS][4];
    float sums[LORA_ROWS] = {};
    for (int i = 4 * threadIdx.x; i < width; i += 4 * blockDim.x) {
#pragma unroll
        for (int row = 0; row < LORA_ROWS; ++row) {
            load_quad(dx + (first + min(row, rows - 1)) * dx_ld + i, width - i, vector, values[row]);
        }
        add_lora(group, inner, width, first, rows, i, vector, values);
        float weights[4];
        load_quad(weight + i, width - i, vector, weights);
#pragma unroll
        for (int row = 0; row < LORA_ROWS; ++row) {
            float old[4];
            load_quad(h + (first + min(row, rows - 1)) * width + i, width - i, vector, old);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                values[row][j] *= weights[j];
                sums[row] += values[row][j] * old[j];
            }
            if (!whole && row < rows) store_quad(dh + (first + row) * width + i, width - i, vector, values[row]);
        }
    }
#pragma unroll
    for (int row = 0; row < LORA_ROWS; ++row) {
        const float sum = warp_sum(sums[row]);
        if ((threadIdx.x & 31) == 0) scratch[row][threadIdx.x >> 5] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int row = 0; row < LORA_ROWS; ++row) {
        const u32 lane = threadIdx.x & 31;
        sums[row] = warp_sum(lane < (blockDim.x >> 5) ? scratch[row][lane] : 0.0f);
    }
    for (int i = 4 * threadIdx.x; i < width; i += 4 * blockDim.x) {
#pragma unroll
        for (int row = 0; row < LORA_ROWS; ++row) {
            if (row >= rows) continue;
            const i64 start = (first + row) * width + i;
            const float reciprocal = rstd[first + row];
            // n mean(g n), with n = h rstd.
            const float share = reciprocal * reciprocal * (sums[row] / width);
            if (!whole) load_quad(dh + start, width - i, vector, values[row]);
            float old[4], beside[4];
            load_quad(h + start, width - i, vector, old);
            load_quad(residual + start, width - i, vector, beside);
#pragma unroll
            for (int j = 0; j < 4; ++j) beside[j] += reciprocal * (values[row][j] - old[j] * share);
            store_quad(dh + start, width - i, vector, beside);
            store_quad(rounded + start, width - i, vector, beside);
        }
    }
}
