/* A game server as small as it gets: native PORT STATE
 * Answers each TCP connection with how often it was started; SIGTERM saves and ends. */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile sig_atomic_t ending;

static void end(int signal) { (void)signal; ending = 1; }

int main(int count, char **words) {
    if (count != 3) return 2;
    char path[4096];
    int starts = 0, on = 1;
    snprintf(path, sizeof path, "%s/starts", words[2]);
    FILE *file = fopen(path, "r");
    if (file) { if (fscanf(file, "%d", &starts) != 1) starts = 0; fclose(file); }
    starts++;

    struct sigaction action = {.sa_handler = end}; /* no SA_RESTART: accept must return */
    sigaction(SIGTERM, &action, NULL);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 8)) return 1;
    while (!ending) {
        int player = accept(listener, NULL, NULL);
        if (player < 0) continue;
        dprintf(player, "native start %d\n", starts);
        close(player);
    }
    file = fopen(path, "w"); /* what a kill would have lost */
    if (!file) return 1;
    fprintf(file, "%d\n", starts);
    return fclose(file) ? 1 : 0;
}
