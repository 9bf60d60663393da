package rebalance

// Load is what lies in the slots of a cluster: by slot. Rows and bytes are estimates unless they were counted. Bytes are those
// on the servers' disks, indexes and large values included.
type Load struct {
	Rows, Bytes []int64
}

// NewLoad returns the load of n empty slots.
func NewLoad(n int) *Load { return &Load{Rows: make([]int64, n), Bytes: make([]int64, n)} }
