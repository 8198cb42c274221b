module neuroscreen/internal/segment/conv/asmgen

go 1.26.0
