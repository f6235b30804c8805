// Products with one packed weight, and with one a head (absorbed MLA).
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/panel.cuh"
#include "kernels/cuda/product.cuh"

void cuda_linear_panel(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor bias)
{
    struct product p = {};
    if (w.dtype == DT_BF16) x = product_pieces(dev, x);
    p.x = x.data, p.x_row = x.stride[0];
    p.w = w.data, p.w_row = panel_stride(w.dtype, w.shape[1]);
    p.out = out.data, p.out_row = out.stride[0], p.out_bf16 = out.dtype == DT_BF16;
    p.n_product = 1, p.m = x.shape[0], p.n = w.shape[0], p.k = x.shape[1];
    p.bias = (const float *)bias.data;
    product_run(dev, &p, x.dtype, w.dtype);
}

extern "C" void cuda_head_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w)
{
    struct product p = {};
    if (w.dtype == DT_BF16) x = product_pieces(dev, x);
    if (w.layout == LAYOUT_PANEL) { // a panel a head
        w.stride[1] = panel_stride(w.dtype, w.shape[2]);
        w.stride[0] = w.shape[1] * w.stride[1];
    } else if (x.dtype == DT_BF16)
        w = product_pieces(dev, w);
    p.x = x.data, p.x_row = x.stride[0], p.x_each = x.stride[1];
    p.w = w.data, p.w_row = w.stride[1], p.w_each = w.stride[0];
    p.out = out.data, p.out_row = out.stride[0], p.out_each = out.stride[1], p.out_bf16 = out.dtype == DT_BF16;
    p.n_product = x.shape[1], p.m = x.shape[0], p.n = w.shape[1], p.k = x.shape[2];
    product_run(dev, &p, x.dtype, w.dtype);
}
