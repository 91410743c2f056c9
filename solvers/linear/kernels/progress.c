/* A stop for PETSc's methods that make no more progress, beside PETSc's test of convergence: see petsc.py. */
#include "kernels.h"

#define REDUCTION 0.99 /* of the least residual norm, which is progress */
#define DIVERGED (-5)  /* KSP_DIVERGED_BREAKDOWN */

/* PetscInt has 32 or 64 bits: the lower ones are where both are read from. */
typedef int Test(KSP method, long iteration, double norm, int *reason, void *context);

/* `_Progress` of petsc.py. */
typedef struct {
    Test *test; /* PETSc's test */
    void *context;
    double least;
    int since, window, has_stalled;
} Progress;

static int stalls(KSP method, int iteration, double norm, int *reason, void *context) {
    Progress *p = context;
    int error = p->test(method, iteration, norm, reason, p->context);
    if (iteration == 0 || norm < REDUCTION * p->least) {
        p->least = norm;
        p->since = iteration;
    }
    p->has_stalled = !error && *reason == 0 && iteration - p->since >= p->window;
    if (p->has_stalled) *reason = DIVERGED;
    return error;
}

/* PETSc's context is not freed with the method then: 32 bytes. */
int progress_watch(KSP method, Progress *p) {
    void *destroy;
    int error = api.KSPGetAndClearConvergenceTest(method, (void **)&p->test, &p->context, &destroy);
    return error ? error : api.KSPSetConvergenceTest(method, (void *)stalls, p, 0);
}
