// Package shiptest tests what the program is delivered with: the container
// image's description, the cluster of docker-compose.yml, packages. It runs
// their scripts and configuration files, outside of containers, on real servers.
package shiptest
