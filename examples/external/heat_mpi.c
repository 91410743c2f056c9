/* heat.c on several MPI ranks, which share the rows between them. Rank 0 talks to penstock:
   `command: mpiexec -n 4 ./build/heat_mpi`. */

#include <mpi.h>
#include <string.h>

#include "penstock.h"

#define N 33 /* vertices along each side, those on the boundary included */
#define NUM_STEPS 10
static const double interval = 0.05; /* between samples, in s */

int main(int argc, char **argv) {
    int rank, size, counts[N], places[N];
    static double initial[N][N], u[N][N], before[N][N]; /* of which a rank uses its rows and their neighbours */
    const double *given_diffusivity = NULL, *given_initial = NULL;
    double diffusivity = 0, *temperature = NULL;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size > N - 2) MPI_Abort(MPI_COMM_WORLD, 1); /* a rank without a row */
    for (int other = 0; other < size; other++) {
        places[other] = N * (1 + (N - 2) * other / size);
        counts[other] = N * (1 + (N - 2) * (other + 1) / size) - places[other];
    }
    const int first = places[rank] / N, end = first + counts[rank] / N;
    const int above = rank > 0 ? rank - 1 : MPI_PROC_NULL, below = rank < size - 1 ? rank + 1 : MPI_PROC_NULL;

    if (rank == 0) {
        penstock_open();
        given_diffusivity = penstock_parameter("diffusivity", 1);
        given_initial = penstock_parameter("initial", N * N);
        temperature = penstock_array("temperature", N * N);
    }
    for (;;) {
        int is_wanted = rank == 0 && penstock_next();
        MPI_Bcast(&is_wanted, 1, MPI_INT, 0, MPI_COMM_WORLD);
        if (!is_wanted) break;
        if (rank == 0) {
            diffusivity = *given_diffusivity;
            memcpy(initial, given_initial, sizeof initial);
        }
        MPI_Bcast(&diffusivity, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
        MPI_Bcast(initial, N * N, MPI_DOUBLE, 0, MPI_COMM_WORLD);
        /* Stable up to h^2 / (4 k). */
        int substeps = (int)(4 * diffusivity * interval * (N - 1) * (N - 1)) + 1;
        double r = diffusivity * interval / substeps * (N - 1) * (N - 1);
        memcpy(u, initial, sizeof u);
        for (int i = 0; i < N; i++) u[i][0] = u[i][N - 1] = u[0][i] = u[N - 1][i] = 0;
        for (int step = 0; step < NUM_STEPS; step++) {
            for (int substep = 0; substep < substeps; substep++) {
                MPI_Sendrecv(u[first], N, MPI_DOUBLE, above, 0, u[end], N, MPI_DOUBLE, below, 0, MPI_COMM_WORLD,
                             MPI_STATUS_IGNORE);
                MPI_Sendrecv(u[end - 1], N, MPI_DOUBLE, below, 0, u[first - 1], N, MPI_DOUBLE, above, 0,
                             MPI_COMM_WORLD, MPI_STATUS_IGNORE);
                memcpy(before, u, sizeof u);
                for (int i = first; i < end; i++)
                    for (int j = 1; j < N - 1; j++)
                        u[i][j] += r * (before[i - 1][j] + before[i + 1][j] + before[i][j - 1] + before[i][j + 1] -
                                        4 * before[i][j]);
            }
            if (rank == 0) memset(temperature, 0, sizeof u);
            MPI_Gatherv(u[first], counts[rank], MPI_DOUBLE, temperature, counts, places, MPI_DOUBLE, 0, MPI_COMM_WORLD);
            if (rank == 0) penstock_send(step, (step + 1) * interval);
        }
    }
    MPI_Finalize();
    return 0;
}
