// What the commands that compute share: the device and the dtype that the common options ask for.
#pragma once
#include "distill/options.h"
#include "kernels/device.h"

enum status open_device(struct device *dev, const struct options *o, struct err *err); // --device, --threads, --sync, --batch-invariant
enum dtype run_dtype(const struct options *o);                                         // --dtype
