import { attackSuite } from './suite.ts';
import { keystoneBackend } from './support/backends.ts';

attackSuite(keystoneBackend);
