! The heat equation on the unit square, by explicit Euler and the five-point Laplacian; see heat.yaml.
program heat
    use, intrinsic :: iso_fortran_env, only: real64
    use penstock
    implicit none
    integer, parameter :: n = 33  ! vertices along each side, those on the boundary included
    integer, parameter :: num_steps = 10
    real(real64), parameter :: interval = 0.05_real64  ! between samples, in s
    real(real64), pointer :: diffusivity(:), initial(:), temperature(:)
    real(real64) :: u(n, n), r
    integer :: step, substep, substeps

    call penstock_open()
    diffusivity => penstock_parameter("diffusivity", 1)
    initial => penstock_parameter("initial", n * n)
    temperature => penstock_array("temperature", n * n)
    do while (penstock_next())
        substeps = int(4 * diffusivity(1) * interval * (n - 1)**2) + 1  ! stable up to h^2 / (4 k)
        r = diffusivity(1) * interval / substeps * (n - 1)**2
        u = reshape(initial, [n, n])
        u(:, [1, n]) = 0
        u([1, n], :) = 0
        do step = 0, num_steps - 1
            do substep = 1, substeps
                u(2:n - 1, 2:n - 1) = u(2:n - 1, 2:n - 1) + r * (u(:n - 2, 2:n - 1) + u(3:, 2:n - 1) &
                                      + u(2:n - 1, :n - 2) + u(2:n - 1, 3:) - 4 * u(2:n - 1, 2:n - 1))
            end do
            temperature = reshape(u, [n * n])
            call penstock_send(step, (step + 1) * interval)
        end do
    end do
end program
