package simulator

func (s *Simulator) markUnsaved() {}
