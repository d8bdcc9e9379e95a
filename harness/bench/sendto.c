/* A loop of sendto(), as quick as a program can be on the kernel's UDP: sendto ADDRESS PORT FRAMES. Prints nanoseconds a frame, in
 * the median slice of 1024, as guest/pmd_speed.py measures. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum { SLICE = 1024, SLICES = 64, PAYLOAD = 18 };

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static int ascending(const void *one, const void *other)
{
	double difference = *(const double *)one - *(const double *)other;

	return (difference > 0) - (difference < 0);
}

int main(int argc, char **argv)
{
	static char payload[PAYLOAD];
	struct sockaddr_in peer = { .sin_family = AF_INET };
	int sock = socket(AF_INET, SOCK_DGRAM, 0);
	static double took[SLICES];
	int slices = 0;

	if (argc != 4 || sock < 0 || !inet_aton(argv[1], &peer.sin_addr))
		return 2;
	peer.sin_port = htons(atoi(argv[2]));
	for (int left = atoi(argv[3]); left > 0 && slices < SLICES; left -= SLICE) {
		double began = now();

		for (int sent = 0; sent < SLICE; sent++)
			if (sendto(sock, payload, sizeof(payload), 0, (struct sockaddr *)&peer, sizeof(peer)) < 0) {
				perror("sendto");
				return 1;
			}
		took[slices++] = now() - began;
	}
	qsort(took, slices, sizeof(*took), ascending);
	printf("%.1f\n", took[slices / 2] / SLICE);
	return 0;
}
