/* The heat equation on the unit square, by explicit Euler and the five-point Laplacian; see heat.yaml. */

#include <string.h>

#include "penstock.h"

#define N 33 /* vertices along each side, those on the boundary included */
#define NUM_STEPS 10
static const double interval = 0.05; /* between samples, in s */

int main(void) {
    penstock_open();
    const double *diffusivity = penstock_parameter("diffusivity", 1);
    const double *initial = penstock_parameter("initial", N * N);
    double *temperature = penstock_array("temperature", N * N);
    static double u[N][N], before[N][N];

    while (penstock_next()) {
        /* Stable up to h^2 / (4 k). */
        int substeps = (int)(4 * *diffusivity * interval * (N - 1) * (N - 1)) + 1;
        double r = *diffusivity * interval / substeps * (N - 1) * (N - 1);
        memcpy(u, initial, sizeof u);
        for (int i = 0; i < N; i++) u[i][0] = u[i][N - 1] = u[0][i] = u[N - 1][i] = 0;
        for (int step = 0; step < NUM_STEPS; step++) {
            for (int substep = 0; substep < substeps; substep++) {
                memcpy(before, u, sizeof u);
                for (int i = 1; i < N - 1; i++)
                    for (int j = 1; j < N - 1; j++)
                        u[i][j] += r * (before[i - 1][j] + before[i + 1][j] + before[i][j - 1] + before[i][j + 1] -
                                        4 * before[i][j]);
            }
            memcpy(temperature, u, sizeof u);
            penstock_send(step, (step + 1) * interval);
        }
    }
    return 0;
}
