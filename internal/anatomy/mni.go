package anatomy

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

// mniTable: `go run ./fit/mni FOLDER` makes it.
//
//go:embed mni.csv
var mniTable string

var mni = map[Class][3]float64{}

func init() {
	for n, line := range strings.Split(strings.TrimSpace(mniTable), "\n") {
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "structure,") {
			continue
		}
		cells := strings.Split(line, ",")
		s, ok := ByName(cells[0])
		if !ok || len(cells) != 4 {
			panic(fmt.Sprintf("anatomy: line %d of mni.csv", n+1))
		}
		var p [3]float64
		for a := range p {
			var err error
			if p[a], err = strconv.ParseFloat(cells[a+1], 64); err != nil {
				panic(fmt.Sprintf("anatomy: line %d of mni.csv: %v", n+1, err))
			}
		}
		mni[s.Class] = p
	}
}

// MNI returns where the centroid of a structure, as the network labels it, lies
// in MNI152 space: RAS mm. Structures that are no landmarks have none: ventricles
// and outer CSF grow with age, and the brain stem ends where an image does.
func MNI(c Class) ([3]float64, bool) {
	p, ok := mni[c]
	return p, ok
}
