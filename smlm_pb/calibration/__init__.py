"""What a calibration target tells of a microscope: pixel size, distortion, the register of two colours."""
