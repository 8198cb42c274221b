package faults

import (
	"fmt"
	"strings"
	"time"
)

// Markdown is the report as a table.
func (r Report) Markdown() string {
	var b strings.Builder
	b.WriteString("| fault | what is done | times | requests sent again | accepted | lost | doubled | wrong state | last end after healing |\n|---|---|---|---|---|---|---|---|---|\n")
	var sum Row
	for _, row := range r.Rows {
		if row.Skipped != "" {
			fmt.Fprintf(&b, "| %s | %s | %s | | | | | | |\n", row.Fault, row.What, row.Skipped)
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %d | %.1f s |\n", row.Fault, row.What, row.Injected, row.Again, row.Accepted, row.Lost, row.Doubled, row.Wrong,
			row.Longest.Round(100*time.Millisecond).Seconds())
		sum.Injected += row.Injected
		sum.Again += row.Again
		sum.Accepted += row.Accepted
		sum.Lost += row.Lost
		sum.Doubled += row.Doubled
		sum.Wrong += row.Wrong
	}
	fmt.Fprintf(&b, "| **all** | | %d | %d | %d | %d | %d | %d | |\n\n", sum.Injected, sum.Again, sum.Accepted, sum.Lost, sum.Doubled, sum.Wrong)
	fmt.Fprintf(&b, "Blobs after the sweep, which removed %d: %d that nothing refers to, %d missing or changed.\n", r.Swept, r.Orphans, r.Missing)
	return b.String()
}

// Failed says whether anything was lost, doubled, wrong or left over.
func (r Report) Failed() bool {
	for _, row := range r.Rows {
		if row.Lost+row.Doubled+row.Wrong > 0 {
			return true
		}
	}
	return r.Orphans != 0 || r.Missing != 0
}
