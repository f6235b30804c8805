// The router of one token: which experts, with what weights (DeepSeek-V2 and V3: inference/model.py's Gate; Hugging Face's MoE blocks).
// TRAP: experts are chosen by score + bias and weighted by the score alone; groups not chosen count as -inf.
#pragma once
#include "kernels/ops.h"
#include "kernels/rows/row.h"

// scores of n logits in place of them
ROW_FN void row_router_scores(float *x, int n, enum router_scoring scoring)
{
    if (scoring == ROUTER_SIGMOID) {
        for (int i = 0; i < n; i++) x[i] = 1.0f / (1.0f + expf(-x[i]));
        return;
    }
    float max = x[0], sum = 0;
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) sum += x[i] = expf(x[i] - max);
    for (int i = 0; i < n; i++) x[i] /= sum;
}
// What a group is worth: the sum of its two best biased scores with a correction bias (V3), its best score without (V2).
ROW_FN float row_router_group(const float *x, int n, bool two)
{
    float a = -INFINITY, b = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (x[i] > a) {
            b = a;
            a = x[i];
        } else if (x[i] > b) {
            b = x[i];
        }
    }
    return two && n > 1 ? a + b : a;
}
// score, choice: room for n_expert floats each; score holds the logits on entry. Ties: the lower id.
ROW_FN void row_router(int32_t *expert, float *weight, float *score, float *choice, const float *bias, const struct router *r)
{
    int n = r->n_expert, per = n / r->n_group;
    row_router_scores(score, n, r->scoring);
    for (int i = 0; i < n; i++) choice[i] = bias ? score[i] + bias[i] : score[i];
    if (r->topk_group < r->n_group) {
        bool taken[OP_EXPERT_MAX] = {false};
        for (int k = 0; k < r->topk_group; k++) {
            int best = -1;
            float most = 0;
            for (int g = 0; g < r->n_group; g++) {
                if (taken[g]) continue;
                float worth = row_router_group(choice + g * per, per, bias != NULL);
                if (best < 0 || worth > most) {
                    best = g;
                    most = worth;
                }
            }
            taken[best] = true;
        }
        for (int i = 0; i < n; i++)
            if (!taken[i / per]) choice[i] = -INFINITY;
    }
    float sum = 0;
    for (int k = 0; k < r->top_k; k++) {
        int best = -1;
        for (int i = 0; i < n; i++) // a chosen one is marked by NaN: never greater, never the first
            if (choice[i] == choice[i] && (best < 0 || choice[i] > choice[best])) best = i;
        if (best < 0) best = 0; // NaN logits: the step's check will say so; here only stay in bounds
        expert[k] = best;
        weight[k] = score[best];
        sum += score[best];
        choice[best] = NAN;
    }
    for (int k = 0; k < r->top_k; k++) weight[k] = (r->norm_topk_prob ? weight[k] / (sum + 1e-20f) : weight[k]) * r->scale;
}
