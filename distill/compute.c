#include "distill/compute.h"

#include "kernels/ops.h"

#include <string.h>

enum status open_device(struct device *dev, const struct options *o, struct err *err)
{
    TRY(dev_open(dev, opt_str(o, "device"), (int)opt_int(o, "threads"), err));
    dev->sync = opt_bool(o, "sync");
    if (dev->backend->batch_dependent) dev->batch_invariant = opt_bool(o, "batch-invariant"); // elsewhere it always is
    return ST_OK;
}

enum dtype run_dtype(const struct options *o)
{
    return strcmp(opt_str(o, "dtype"), "f32") ? DT_BF16 : DT_F32;
}
