// Package helmtest renders the chart as Helm does and reads what comes of it as
// Kubernetes does. It is a module of its own: Helm is large, and nothing of it
// belongs to the program.
package helmtest
