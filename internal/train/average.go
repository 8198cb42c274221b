package train

import (
	"errors"

	"neuroscreen/internal/segment"
)

// Average is the network whose weights are the mean of those of networks that
// learnt on from each other: where a rate is high, each lies at the rim of what
// fits the heads, and their mean nearer its middle (Izmailov et al. 2018,
// arXiv:1803.05407). Its provenance is the last one's.
func Average(of []*segment.Model) (*segment.Model, error) {
	if len(of) == 0 {
		return nil, errors.New("train: the mean of no networks")
	}
	last := of[len(of)-1]
	mean := segment.NewModel(last.Architecture)
	mean.Provenance = last.Provenance
	mean.Provenance.Evaluation, mean.Provenance.MeanOf = nil, nil
	share := 1 / float32(len(of))
	for _, m := range of {
		if m.Architecture != last.Architecture {
			return nil, errors.New("train: networks of different shapes have no mean")
		}
		add := func(to, from []float32) {
			for i, v := range from {
				to[i] += share * v
			}
		}
		for b := range m.Weight {
			add(mean.Weight[b], m.Weight[b])
			add(mean.Bias[b], m.Bias[b])
		}
		add(mean.HeadUp, m.HeadUp)
		add(mean.HeadW, m.HeadW)
		add(mean.HeadB, m.HeadB)
		p := m.Provenance
		mean.Provenance.MeanOf = append(mean.Provenance.MeanOf, segment.Start{Base: m.Architecture.Base, Wide: m.Architecture.Wide, Below: m.Architecture.Below, Steps: p.Steps, Before: p.Start})
	}
	return mean, nil
}
