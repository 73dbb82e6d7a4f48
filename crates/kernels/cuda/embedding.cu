// The gradient of an embedding's rows. The rows of a pass come sorted by token, so that a sum belongs to one block, which
// adds in the order of the pass: no atomics.

// dh [T, D]; order: rows of the pass by token; starts [U + 1] into it; slots [U]: the row of `sums` of each token;
// sums [S, D] is added to; slot_of_row [V] learns tokens[u] -> slots[u]. Grid: x over D in blocks of 128, y over tokens.
extern "C" __global__ void embedding_gradient(const float* dh, const int* order, const int* starts, const int* slots,
                                              const int* tokens, float* sums, int* slot_of_row, int width) {
    const int token = blockIdx.y;
    const int slot = slots[token];
    if (blockIdx.x == 0 && threadIdx.x == 0) slot_of_row[tokens[token]] = slot;
    const int channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= width) return;
    float* place = sums + i64(slot) * width + channel;
    float sum = *place;
    for (int i = starts[token]; i < starts[token + 1]; ++i) sum += dh[i64(order[i]) * width + channel];
    *place = sum;
}
