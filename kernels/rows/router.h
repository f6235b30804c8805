// The router of one token: which experts, with what weights (DeepSeek-V2 and V3: inference/model.py's Gate; Hugging Face's MoE blocks).
// TRAP: experts are chosen by score + bias and weighted by the score alone; groups not chosen count as -inf.
#pragma once
#include "kernels/ops.h"
#include "kernels/rows/row.h"

ROW_FN float row_router_sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}
// scores of n logits in place of them
ROW_FN void row_router_scores(float *x, int n, enum router_scoring scoring)
{
    if (scoring == ROUTER_SIGMOID) {
        for (int i = 0; i < n; i++) x[i] = row_router_sigmoid(x[i]);
        return;
    }
    float max = x[0], sum = 0;
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) sum += x[i] = expf(x[i] - max);
    for (int i = 0; i < n; i++) x[i] /= sum;
}
// The two best of a group: a the best, b the next; both begin at -inf.
ROW_FN void row_router_two_best(float *a, float *b, float x)
{
    if (x > *a) {
        *b = *a;
        *a = x;
    } else if (x > *b) {
        *b = x;
    }
}
// What a group of `per` is worth: the sum of its two best biased scores with a correction bias (V3), its best score without (V2).
// Never NaN: inf - inf, which no finite bias makes, counts as nothing.
ROW_FN float row_router_worth(float a, float b, int per, bool biased)
{
    float worth = biased && per > 1 ? a + b : a;
    return worth == worth ? worth : -INFINITY;
}
// Whether (x, i) is chosen before (y, j): the higher, of equals the lower id. NaN is never chosen, and j < 0 is nothing yet.
ROW_FN bool row_router_before(float x, int i, float y, int j)
{
    return x == x && (j < 0 || x > y || (x == y && i < j));
}
ROW_FN float row_router_weight(float score, float sum, const struct router *r)
{
    return (r->norm_topk_prob ? score / (sum + 1e-20f) : score) * r->scale;
}
// score, choice: room for n_expert floats each; score holds the logits on entry. Ties: the lower id.
ROW_FN void row_router(int32_t *expert, float *weight, float *score, float *choice, const float *bias, const struct router *r)
{
    int n = r->n_expert, per = n / r->n_group;
    row_router_scores(score, n, r->scoring);
    for (int i = 0; i < n; i++) choice[i] = bias ? score[i] + bias[i] : score[i];
    if (r->topk_group < r->n_group) {
        bool taken[OP_EXPERT_MAX] = {false};
        float worth[OP_EXPERT_MAX];
        for (int g = 0; g < r->n_group; g++) {
            float a = -INFINITY, b = -INFINITY;
            for (int i = 0; i < per; i++) row_router_two_best(&a, &b, choice[g * per + i]);
            worth[g] = row_router_worth(a, b, per, bias != NULL);
        }
        for (int k = 0; k < r->topk_group; k++) {
            int best = -1;
            for (int g = 0; g < r->n_group; g++)
                if (!taken[g] && row_router_before(worth[g], g, best < 0 ? 0 : worth[best], best)) best = g;
            taken[best] = true;
        }
        for (int i = 0; i < n; i++)
            if (!taken[i / per]) choice[i] = -INFINITY;
    }
    float sum = 0;
    for (int k = 0; k < r->top_k; k++) {
        int best = -1;
        for (int i = 0; i < n; i++) // a chosen one is marked by NaN
            if (row_router_before(choice[i], i, best < 0 ? 0 : choice[best], best)) best = i;
        if (best < 0) best = 0; // NaN logits: the step's check will say so; here only stay in bounds
        expert[k] = best;
        weight[k] = score[best];
        sum += score[best];
        choice[best] = NAN;
    }
    for (int k = 0; k < r->top_k; k++) weight[k] = row_router_weight(weight[k], sum, r);
}
