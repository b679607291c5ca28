/* Terminals and standard descriptors of a container's process; see internal.h and pty(7). */
#include "container/internal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

int stdio_set(const int fds[3], struct error *err)
{
	for (int i = 0; i < 3; i++)
		if (dup2(fds[i], i) < 0)
			return error_sys(err, errno, "set up standard input and output");
	return 0;
}

int terminal_open(struct error *err)
{
	autofd int master = file_open_at(AT_FDCWD, "/dev/pts/ptmx", O_RDWR | O_NOCTTY, 0, err);
	autofd int slave = -EBADF;
	int unlock = 0, rc;

	if (master < 0)
		return master;
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return error_sys(err, errno, "unlock the terminal");
	/* By descriptor: a path would be the container's to bend. */
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return error_sys(err, errno, "open the terminal");
	if (setsid() < 0 && errno != EPERM)
		return error_sys(err, errno, "start a session");
	if (ioctl(slave, TIOCSCTTY, 0) < 0)
		return error_sys(err, errno, "make the terminal the controlling one");
	rc = stdio_set((int[]){slave, slave, slave}, err);
	return rc < 0 ? rc : steal_fd(&master);
}
