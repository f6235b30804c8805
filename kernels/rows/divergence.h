// Divergences between the teacher's distribution p and the student's q, as sums over categories (docs: Hinton 2015; GKD, arXiv 2306.13649).
// A category gives a term and the term's derivative with respect to log q, all from (log p, log q). With log q_i = z_i/T - log Z, and the
// categories being the kept ids and perhaps a tail (all the other ids together, log q_tail = log(1 - Σ q_kept)):
//
//     dD/dz_j = ( g_j [j kept] + g_tail * S_j / q_tail [j not kept] - S_j Σ g ) / T        S_j: the student's probability of j
//
// where Σ g runs over all categories. This holds for any term, so a new divergence is a case in row_divergence and nothing else. TRAP: a
// support cut short without a tail is only right for forward KL (then the gradient is S - P̂: sampled targets).
#pragma once
#include "kernels/ops.h"
#include "kernels/rows/row.h"

struct div_term {
    float term, grad; // grad: d term / d log q
    float p, q;
};
#define ROW_LOG_MIN (-100.0f) // stands for log 0: terms stay finite, probabilities vanish in f32

ROW_FN float row_logaddexp(float a, float b)
{
    float hi = a > b ? a : b, lo = a > b ? b : a;
    return hi + log1pf(expf(lo - hi));
}
// log(1 - e^lse): what categories of total log-probability `lse` leave to the tail. Never quite nothing: rounding may put lse at 0 or
// above.
ROW_FN float row_log_rest(float lse)
{
    return logf(-expm1f(lse < -1e-7f ? lse : -1e-7f));
}
ROW_FN struct div_term row_divergence(enum divergence kind, float beta, float lp, float lq)
{
    lp = lp > ROW_LOG_MIN ? lp : ROW_LOG_MIN;
    lq = lq > ROW_LOG_MIN ? lq : ROW_LOG_MIN;
    float p = expf(lp), q = expf(lq);
    struct div_term r = {0, 0, p, q};
    if (kind == DIV_JSD) { // at its ends TRL's generalised JSD is the KL itself, not its limit 0
        if (beta <= 0) kind = DIV_FKL;
        if (beta >= 1) kind = DIV_RKL;
    }
    switch (kind) {
    case DIV_FKL:
        r.term = p * (lp - lq);
        r.grad = -p;
        break;
    case DIV_RKL:
        r.term = q * (lq - lp);
        r.grad = q * (lq - lp + 1);
        break;
    case DIV_JSD: { // m = beta p + (1-beta) q; the parts of dm cancel but for this
        float lm = row_logaddexp(logf(beta) + lp, log1pf(-beta) + lq);
        r.term = beta * p * (lp - lm) + (1 - beta) * q * (lq - lm);
        r.grad = (1 - beta) * q * (lq - lm);
        break;
    }
    case DIV_NONE:
        break;
    }
    return r;
}

// The teacher's log-probability of a kept id at the temperature: from that at T = 1 and both log Z.
ROW_FN float row_teacher_logprob(const struct loss_mix *mix, float logprob, double log_z1, double log_zt)
{
    if (mix->temperature == 1.0f) return logprob;
    return (float)(((double)logprob + log_z1) * (1.0 / (double)mix->temperature) - log_zt);
}
// The tail's category, from what was stored of it (NaN: nothing) and the kept ids' sums of p and q. *per_q: g_tail / q_tail, what the
// gradient of every id that is not kept needs.
ROW_FN struct div_term row_tail(const struct loss_mix *mix, float stored, double p_sum, double q_sum, double *per_q)
{
    const bool known = stored == -INFINITY || (mix->temperature == 1.0f && stored == stored);
    const float lp = known ? stored : row_log_rest((float)log(p_sum)), lq = row_log_rest((float)log(q_sum));
    const struct div_term d = row_divergence(mix->divergence, mix->beta, lp, lq);
    *per_q = (double)d.grad / exp((double)lq);
    return d;
}
