// The experts' products: which rows are whose stands in the device's memory alone, and the host never waits for it. Each block makes the
// list of tiles for itself (product_plan) and takes every gridDim-th of it, whatever the experts got.
#include "kernels/cuda/panel.cuh"
#include "kernels/cuda/product.cuh"

extern "C" void cuda_grouped_linear(struct device *dev, struct tensor out, struct tensor x, const struct expert_weights *w,
                                    struct tensor first)
{
    struct product p = {};
    enum dtype x_type = x.dtype;
    p.m = x.shape[0], p.n = w->n, p.k = w->k;
    if (w->scale) {
        product_quantise(dev, &p, x, w->ue8m0);
        p.scale = w->scale;
        x_type = DT_E4M3;
    } else {
        if (w->dtype == DT_BF16) x = product_pieces(dev, x);
        p.x = x.data, p.x_row = x.stride[0];
    }
    p.w_row = panel_stride(w->dtype, w->k);
    p.out = out.data, p.out_row = out.stride[0], p.out_bf16 = out.dtype == DT_BF16;
    p.n_product = w->n_expert;
    p.slot = w->slot;
    p.first = (const int32_t *)first.data;
    product_run(dev, &p, x_type, w->dtype);
}
